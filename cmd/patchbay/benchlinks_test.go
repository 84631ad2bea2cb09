//go:build linux

package main

import "flag"

// benchLinks has TestBenchForward and TestBenchMedia measure: minutes of full
// load on two cores, in network namespaces, as root ("make bench-links").
var benchLinks = flag.Bool("bench.links", false, "measure forwarding and media over each driver, and their peers")
