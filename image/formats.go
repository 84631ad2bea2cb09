package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"
)

// convert makes the other formats out of the raw disk.
func (b *builder) convert() {
	wants := func(f string) bool { return slices.Contains(b.spec.Formats, f) }
	if wants(QCOW2) {
		b.run(nil, "qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", "-c", "patchbay.raw", "patchbay.qcow2")
		b.add("patchbay.qcow2")
	}
	if wants(VMDK) || wants(OVA) {
		b.run(nil, "qemu-img", "convert", "-q", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", "patchbay.raw", "patchbay.vmdk")
		b.steadyVMDK()
	}
	if wants(OVA) {
		b.ova()
		b.add("patchbay.ova")
	}
	if wants(VMDK) {
		b.add("patchbay.vmdk")
	}
	if wants(Raw) {
		b.add("patchbay.raw")
	}
}

// contentID is a random number in a VMDK that says which of two is the newer.
// qemu-img writes it without zeros in front.
var contentID = regexp.MustCompile(`(?m)^CID=[0-9a-f]{1,8}$`)

// steadyVMDK makes the only random number in a VMDK the same in each. The text it
// is in is in the first sectors, with zeros behind it. (VMware, Virtual Disk Format
// 1.1.)
func (b *builder) steadyVMDK() {
	if b.err != nil {
		return
	}
	b.err = steadyVMDK(filepath.Join(b.tmp, "patchbay.vmdk"))
}

func steadyVMDK(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, 64<<10)
	if _, err := f.ReadAt(head, 0); err != nil {
		return err
	}
	at := contentID.FindIndex(head)
	if at == nil {
		return errors.New("patchbay.vmdk has no CID")
	}
	const steady = "CID=50425a49"
	longer := len(steady) - (at[1] - at[0])
	end := at[1] + bytes.IndexByte(head[at[1]:], 0)
	if end < at[1] || len(bytes.Trim(head[end:end+longer], "\x00")) > 0 {
		return errors.New("patchbay.vmdk has no room for a longer CID")
	}
	text := append([]byte(steady), head[at[1]:end]...)
	_, err = f.WriteAt(text, int64(at[0]))
	return err
}

// ova packs the VMDK with the description of a machine: a tar file of the OVF, its
// sums and the disk. (DMTF DSP0243, section 6.)
func (b *builder) ova() {
	if b.err != nil {
		return
	}
	b.err = b.packed()
}

func (b *builder) packed() error {
	vmdk := filepath.Join(b.tmp, "patchbay.vmdk")
	info, err := os.Stat(vmdk)
	if err != nil {
		return err
	}
	sum, err := fileSum(vmdk)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := ovfText.Execute(&text, ovf{info.Size(), b.spec.DiskSize, ovfCards}); err != nil {
		return err
	}
	manifest := fmt.Appendf(nil, "SHA256(patchbay.ovf)= %s\nSHA256(patchbay.vmdk)= %s\n", sumOf(text.Bytes()), sum)
	out, err := os.Create(filepath.Join(b.tmp, "patchbay.ova"))
	if err != nil {
		return err
	}
	defer out.Close()
	disk, err := os.Open(vmdk)
	if err != nil {
		return err
	}
	defer disk.Close()
	t := tar.NewWriter(out)
	for _, f := range []struct {
		name string
		size int64
		data io.Reader
	}{
		{"patchbay.ovf", int64(text.Len()), &text},
		{"patchbay.mf", int64(len(manifest)), bytes.NewReader(manifest)},
		{"patchbay.vmdk", info.Size(), disk},
	} {
		if err := t.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: f.size, ModTime: epoch, Format: tar.FormatUSTAR}); err != nil {
			return err
		}
		if _, err := io.Copy(t, f.data); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return out.Close()
}

// ovfCards are the network cards of a machine, in the order of its slots.
var ovfCards = []string{"Management0/0", "GigabitEthernet0/0", "GigabitEthernet0/1"}

// An ovf is what the description of a machine says of this image.
type ovf struct {
	FileSize, DiskSize int64 // bytes
	Cards              []string
}

// Network is the name of the network of a card.
func (ovf) Network(card string) string { return strings.ReplaceAll(card, "/", "-") }

// Slot and Instance are where card n is, and its number among all devices.
func (ovf) Slot(n int) int     { return 7 + n }
func (ovf) Instance(n int) int { return 5 + n }

// ovfText describes a machine with two processors, 512 MB, a paravirtual disk
// controller and network cards: a template of an ovf. (DMTF DSP0243, sections 7 and
// 8; resource types of CIM_ResourceAllocationSettingData.)
var ovfText = template.Must(template.New("ovf").Parse(`<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
  <References>
    <File ovf:id="disk" ovf:href="patchbay.vmdk" ovf:size="{{.FileSize}}"/>
  </References>
  <DiskSection>
    <Info>The disk</Info>
    <Disk ovf:diskId="disk0" ovf:fileRef="disk" ovf:capacity="{{.DiskSize}}" ovf:capacityAllocationUnits="byte" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <NetworkSection>
    <Info>The networks</Info>
{{- range .Cards}}
    <Network ovf:name="{{$.Network .}}"><Description>{{.}}</Description></Network>
{{- end}}
  </NetworkSection>
  <VirtualSystem ovf:id="patchbay">
    <Info>A phone proxy and firewall</Info>
    <Name>patchbay</Name>
    <OperatingSystemSection ovf:id="101">
      <Info>The operating system</Info>
      <Description>Linux, 64 bit</Description>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>The hardware</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>patchbay</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-11</vssd:VirtualSystemType>
      </System>
      <Item>
        <rasd:ElementName>2 processors</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>2</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:ElementName>512 MB of memory</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>512</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:Address>0</rasd:Address>
        <rasd:ElementName>Disk controller</rasd:ElementName>
        <rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType>
        <rasd:ResourceType>6</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:ElementName>Disk</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/disk0</rasd:HostResource>
        <rasd:InstanceID>4</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType>
      </Item>
{{- range $n, $card := .Cards}}
      <Item>
        <rasd:AddressOnParent>{{$.Slot $n}}</rasd:AddressOnParent>
        <rasd:AutomaticAllocation>true</rasd:AutomaticAllocation>
        <rasd:Connection>{{$.Network $card}}</rasd:Connection>
        <rasd:ElementName>{{$card}}</rasd:ElementName>
        <rasd:InstanceID>{{$.Instance $n}}</rasd:InstanceID>
        <rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType>
        <rasd:ResourceType>10</rasd:ResourceType>
      </Item>
{{- end}}
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
`))
