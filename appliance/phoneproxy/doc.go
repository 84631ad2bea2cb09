// Package phoneproxy is the phone-proxy instance: what a phone outside gets for
// the name of a file, the configuration file made secure, and the database of
// secure phones.
//
// What a reader may get wrong: the name asked for decides everything. The same
// file asked for with and without ".sgn" is two different answers, and no file
// that names a call manager leaves without being rewritten.
package phoneproxy
