package skinny

import "fmt"

// Name returns what the message with this ID is called, or its number where it
// has no name here. (reference/skinny.md, section 9.)
func Name(id uint32) string {
	if n := name(id); n != "" {
		return n
	}
	return fmt.Sprintf("message 0x%04x", id)
}

func name(id uint32) string {
	switch {
	case id < uint32(len(phoneNames)):
		return phoneNames[id]
	case id >= firstUCM && id-firstUCM < uint32(len(ucmNames)):
		return ucmNames[id-firstUCM]
	case id == idSPCPRegisterTokenReq:
		return "SPCPRegisterTokenReq"
	case id == 0x8100:
		return "SPCPRegisterTokenAck"
	case id == 0x8101:
		return "SPCPRegisterTokenReject"
	}
	return ""
}

// How the call manager answers Register.
const (
	RegisterAck    = idRegisterAck
	RegisterReject = 0x009d
)

// The messages that the engine knows more of than the name.
const (
	idKeepAlive              = 0x0000
	idRegister               = 0x0001
	idKeypadButton           = 0x0003
	idEnblocCall             = 0x0004
	idStimulus               = 0x0005
	idOffHook                = 0x0006
	idHookFlash              = 0x0008
	idAlarm                  = 0x0020
	idOpenReceiveAck         = 0x0022
	idOffHookCalling         = 0x0024
	idSoftKeyEvent           = 0x0026
	idRegisterTokenReq       = 0x0029
	idTransmissionFailure    = 0x002a
	idOpenMultiReceiveAck    = 0x0031
	idPortResponse           = 0x0045
	idRegisterAck            = 0x0081
	idStartTransmission      = 0x008a
	idStopTransmission       = 0x008b
	idStartSession           = 0x0095
	idStopSession            = 0x0096
	idServerRes              = 0x009e
	idStartMulticastReceive  = 0x0101
	idStartMulticastTransmit = 0x0102
	idOpenReceive            = 0x0105
	idCloseReceive           = 0x0106
	idUnregisterAck          = 0x0118
	idOpenMultiReceive       = 0x0131
	idStartMultiTransmission = 0x0132
	idStopMultiTransmission  = 0x0133
	idCloseMultiReceive      = 0x0136
	idPortRequest            = 0x014b
	idPortClose              = 0x014c
	idStartTransmissionAck   = 0x0154
	idXMLAlarm               = 0x015a
	idStartMultiTransmitAck  = 0x0155
	idSPCPRegisterTokenReq   = 0x8000
	firstUCM                 = 0x0081 // the first ID in ucmNames
)

// phoneNames are the messages from phone to UCM below firstUCM.
var phoneNames = [...]string{
	0x00: "KeepAlive",
	0x01: "Register",
	0x02: "IpPort",
	0x03: "KeypadButton",
	0x04: "EnblocCall",
	0x05: "Stimulus",
	0x06: "OffHook",
	0x07: "OnHook",
	0x08: "HookFlash",
	0x09: "ForwardStatReq",
	0x0a: "SpeedDialStatReq",
	0x0b: "LineStatReq",
	0x0c: "ConfigStatReq",
	0x0d: "TimeDateReq",
	0x0e: "ButtonTemplateReq",
	0x0f: "VersionReq",
	0x10: "CapabilitiesRes",
	0x11: "MediaPortList",
	0x12: "ServerReq",
	0x20: "Alarm",
	0x21: "MulticastMediaReceptionAck",
	0x22: "OpenReceiveChannelAck",
	0x23: "ConnectionStatisticsRes",
	0x24: "OffHookWithCallingParty",
	0x25: "SoftKeySetReq",
	0x26: "SoftKeyEvent",
	0x27: "Unregister",
	0x28: "SoftKeyTemplateReq",
	0x29: "RegisterTokenReq",
	0x2a: "MediaTransmissionFailure",
	0x2b: "HeadsetStatus",
	0x2c: "MediaResourceNotification",
	0x2d: "RegisterAvailableLines",
	0x2e: "DeviceToUserData",
	0x2f: "DeviceToUserDataResponse",
	0x30: "UpdateCapabilities",
	0x31: "OpenMultiMediaReceiveChannelAck",
	0x32: "ClearConference",
	0x33: "ServiceURLStatReq",
	0x34: "FeatureStatReq",
	0x35: "CreateConferenceRes",
	0x36: "DeleteConferenceRes",
	0x37: "ModifyConferenceRes",
	0x38: "AddParticipantRes",
	0x39: "AuditConferenceRes",
	0x40: "AuditParticipantRes",
	0x41: "DeviceToUserDataV1",
	0x42: "DeviceToUserDataResponseV1",
	0x43: "UpdateCapabilitiesV2",
	0x44: "UpdateCapabilitiesV3",
	0x45: "PortResponse",
	0x46: "QoSResvNotify",
	0x47: "QoSErrorNotify",
	0x48: "SubscriptionStatReq",
	0x49: "AccessoryStatus",
	0x4a: "MediaPathCapability",
	0x4c: "MwiNotification",
}

// ucmNames are the messages from UCM to phone and the later ones of both, from
// firstUCM on.
var ucmNames = [...]string{
	0x0081 - firstUCM: "RegisterAck",
	0x0082 - firstUCM: "StartTone",
	0x0083 - firstUCM: "StopTone",
	0x0085 - firstUCM: "SetRinger",
	0x0086 - firstUCM: "SetLamp",
	0x0087 - firstUCM: "SetHookFlashDetect",
	0x0088 - firstUCM: "SetSpeakerMode",
	0x0089 - firstUCM: "SetMicroMode",
	0x008a - firstUCM: "StartMediaTransmission",
	0x008b - firstUCM: "StopMediaTransmission",
	0x008c - firstUCM: "StartMediaReception",
	0x008d - firstUCM: "StopMediaReception",
	0x008f - firstUCM: "CallInfo",
	0x0090 - firstUCM: "ForwardStat",
	0x0091 - firstUCM: "SpeedDialStat",
	0x0092 - firstUCM: "LineStat",
	0x0093 - firstUCM: "ConfigStat",
	0x0094 - firstUCM: "DefineTimeDate",
	0x0095 - firstUCM: "StartSessionTransmission",
	0x0096 - firstUCM: "StopSessionTransmission",
	0x0097 - firstUCM: "ButtonTemplate",
	0x0098 - firstUCM: "Version",
	0x0099 - firstUCM: "DisplayText",
	0x009a - firstUCM: "ClearDisplay",
	0x009b - firstUCM: "CapabilitiesReq",
	0x009c - firstUCM: "EnunciatorCommand",
	0x009d - firstUCM: "RegisterReject",
	0x009e - firstUCM: "ServerRes",
	0x009f - firstUCM: "Reset",
	0x0100 - firstUCM: "KeepAliveAck",
	0x0101 - firstUCM: "StartMulticastMediaReception",
	0x0102 - firstUCM: "StartMulticastMediaTransmission",
	0x0103 - firstUCM: "StopMulticastMediaReception",
	0x0104 - firstUCM: "StopMulticastMediaTransmission",
	0x0105 - firstUCM: "OpenReceiveChannel",
	0x0106 - firstUCM: "CloseReceiveChannel",
	0x0107 - firstUCM: "ConnectionStatisticsReq",
	0x0108 - firstUCM: "SoftKeyTemplateRes",
	0x0109 - firstUCM: "SoftKeySetRes",
	0x0110 - firstUCM: "SelectSoftKeys",
	0x0111 - firstUCM: "CallState",
	0x0112 - firstUCM: "DisplayPromptStatus",
	0x0113 - firstUCM: "ClearPromptStatus",
	0x0114 - firstUCM: "DisplayNotify",
	0x0115 - firstUCM: "ClearNotify",
	0x0116 - firstUCM: "ActivateCallPlane",
	0x0117 - firstUCM: "DeactivateCallPlane",
	0x0118 - firstUCM: "UnregisterAck",
	0x0119 - firstUCM: "BackSpaceRes",
	0x011a - firstUCM: "RegisterTokenAck",
	0x011b - firstUCM: "RegisterTokenReject",
	0x011c - firstUCM: "StartMediaFailureDetection",
	0x011d - firstUCM: "DialedNumber",
	0x011e - firstUCM: "UserToDeviceData",
	0x011f - firstUCM: "FeatureStat",
	0x0120 - firstUCM: "DisplayPriNotify",
	0x0121 - firstUCM: "ClearPriNotify",
	0x0122 - firstUCM: "StartAnnouncement",
	0x0123 - firstUCM: "StopAnnouncement",
	0x0124 - firstUCM: "AnnouncementFinish",
	0x0127 - firstUCM: "NotifyDtmfTone",
	0x0128 - firstUCM: "SendDtmfTone",
	0x0129 - firstUCM: "SubscribeDtmfPayloadReq",
	0x012a - firstUCM: "SubscribeDtmfPayloadRes",
	0x012b - firstUCM: "SubscribeDtmfPayloadErr",
	0x012c - firstUCM: "UnSubscribeDtmfPayloadReq",
	0x012d - firstUCM: "UnSubscribeDtmfPayloadRes",
	0x012e - firstUCM: "UnSubscribeDtmfPayloadErr",
	0x012f - firstUCM: "ServiceURLStat",
	0x0130 - firstUCM: "CallSelectStat",
	0x0131 - firstUCM: "OpenMultiMediaReceiveChannel",
	0x0132 - firstUCM: "StartMultiMediaTransmission",
	0x0133 - firstUCM: "StopMultiMediaTransmission",
	0x0134 - firstUCM: "MiscellaneousCommand",
	0x0135 - firstUCM: "FlowControlCommand",
	0x0136 - firstUCM: "CloseMultiMediaReceiveChannel",
	0x0137 - firstUCM: "CreateConferenceReq",
	0x0138 - firstUCM: "DeleteConferenceReq",
	0x0139 - firstUCM: "ModifyConferenceReq",
	0x013a - firstUCM: "AddParticipantReq",
	0x013b - firstUCM: "DropParticipantReq",
	0x013c - firstUCM: "AuditConferenceReq",
	0x013d - firstUCM: "AuditParticipantReq",
	0x013f - firstUCM: "UserToDeviceDataV1",
	0x0140 - firstUCM: "VideoDisplayCommand",
	0x0141 - firstUCM: "FlowControlNotify",
	0x0142 - firstUCM: "ConfigStatDynamic",
	0x0143 - firstUCM: "DisplayDynamicNotify",
	0x0144 - firstUCM: "DisplayDynamicPriNotify",
	0x0145 - firstUCM: "DisplayDynamicPromptStatus",
	0x0146 - firstUCM: "FeatureStatDynamic",
	0x0147 - firstUCM: "LineStatDynamic",
	0x0148 - firstUCM: "ServiceURLStatDynamic",
	0x0149 - firstUCM: "SpeedDialStatDynamic",
	0x014a - firstUCM: "CallInfoDynamic",
	0x014b - firstUCM: "PortRequest",
	0x014c - firstUCM: "PortClose",
	0x014d - firstUCM: "QoSListen",
	0x014e - firstUCM: "QoSPath",
	0x014f - firstUCM: "QoSTeardown",
	0x0150 - firstUCM: "UpdateDSCP",
	0x0151 - firstUCM: "QoSModify",
	0x0152 - firstUCM: "SubscriptionStat",
	0x0153 - firstUCM: "Notification",
	0x0154 - firstUCM: "StartMediaTransmissionAck",
	0x0155 - firstUCM: "StartMultiMediaTransmissionAck",
	0x0156 - firstUCM: "CallHistoryDisposition",
	0x0157 - firstUCM: "LocationInfo",
	0x0158 - firstUCM: "MwiResponse",
	0x0159 - firstUCM: "ExtensionDeviceCaps",
	0x015a - firstUCM: "XMLAlarm",
	0x015e - firstUCM: "CallCountReq",
	0x015f - firstUCM: "CallCountResp",
	0x0160 - firstUCM: "RecordingStatus",
}
