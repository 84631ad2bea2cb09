// Package lab holds honest peers for Patchbay's demo and tests: remote phones
// that speak SIP and Skinny over TLS and SRTP, plain phones inside, a call
// manager with its TFTP server, a home router that does PAT, and the networks
// in memory that join them. The appliance is not part of it: the caller puts
// it between Lab.Outside and Lab.Inside.
//
// What a reader may get wrong: nothing here is shared with the engines under
// test. The wire formats are written a second time from the reference pages,
// on purpose, so that a mistake in one is seen by the other; do not join them.
// Time here is real time, for phones talk in real time.
package lab
