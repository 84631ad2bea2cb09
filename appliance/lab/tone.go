package lab

import "math"

const (
	sampleRate  = 8000 // Hz, of G.711
	frameLen    = 160  // samples, and bytes of G.711, in 20 ms
	toneStep    = 50   // Hz: with 160 samples the Goertzel bins of these do not mix
	toneLowest  = 300  // Hz
	toneHighest = 3400 // Hz
	toneLevel   = 8000 // peak, of 32767
	// toneShare is how much of a frame's energy must lie at one frequency for
	// the frame to be that tone.
	toneShare = 0.8
	// silenceEnergy is the mean square below which a frame is silence.
	silenceEnergy = 100 * 100
)

// A tone makes a sine in G.711 µ-law, frame by frame without a jump.
type tone struct {
	hz    int
	phase int // samples sent, modulo sampleRate: one second holds whole periods
}

// next writes the next frame into dst.
func (t *tone) next(dst *[frameLen]byte) {
	for i := range dst {
		x := toneLevel * math.Sin(2*math.Pi*float64(t.hz)*float64(t.phase)/sampleRate)
		dst[i] = encodeMuLaw(int16(x))
		if t.phase++; t.phase == sampleRate {
			t.phase = 0
		}
	}
}

// detectTone returns the frequency in Hz, a multiple of 50, that fills a frame
// of µ-law; 0 for silence or noise. (Goertzel's algorithm.)
func detectTone(frame []byte) int {
	if len(frame) != frameLen {
		return 0
	}
	var x [frameLen]float64
	var energy float64
	for i, b := range frame {
		x[i] = float64(decodeMuLaw(b))
		energy += x[i] * x[i]
	}
	if energy < silenceEnergy*frameLen {
		return 0
	}
	best, bestPower := 0, 0.0
	for hz := toneLowest; hz <= toneHighest; hz += toneStep {
		c := 2 * math.Cos(2*math.Pi*float64(hz)/sampleRate)
		var s1, s2 float64
		for _, v := range x {
			s1, s2 = v+c*s1-s2, s1
		}
		if p := s1*s1 + s2*s2 - c*s1*s2; p > bestPower {
			best, bestPower = hz, p
		}
	}
	// A sine that fills the frame has power energy * N/2 in its bin.
	if bestPower < toneShare*energy*frameLen/2 {
		return 0
	}
	return best
}

const (
	muLawBias = 0x84 // added to the magnitude before the segment is found
	muLawClip = 32635
)

// encodeMuLaw codes one linear sample. (ITU-T G.711, table 2a.)
func encodeMuLaw(x int16) byte {
	v := int(x)
	sign := byte(0)
	if v < 0 {
		v, sign = -v, 0x80
	}
	v = min(v, muLawClip) + muLawBias
	exp := 7
	for mask := 0x4000; exp > 0 && v&mask == 0; mask >>= 1 {
		exp--
	}
	return ^(sign | byte(exp)<<4 | byte(v>>(exp+3))&0x0f)
}

// decodeMuLaw is the inverse of encodeMuLaw, within the step of the segment.
func decodeMuLaw(b byte) int16 {
	b = ^b
	v := (int(b&0x0f)<<3+muLawBias)<<(b>>4&7) - muLawBias
	if b&0x80 != 0 {
		v = -v
	}
	return int16(v)
}
