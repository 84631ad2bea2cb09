// Package pki keeps the appliance's key pairs and trustpoints on flash, issues
// its self-signed certificates and verifies the certificates that phones show.
//
// What a reader may get wrong: a trustpoint's CA certificate is an anchor
// because an administrator installed it, not because it is self-signed or looks
// like a CA; and a phone's chain is walked by hand, for crypto/x509 refuses the
// SHA-1 signatures that nearly every phone carries.
package pki
