package config

import "io"

// CheckAll is Check for a box that does everything the language has: what only
// the table of unsupported features refuses passes.
func CheckAll(file string, r io.Reader) (*Running, []Finding) { return CheckOnly(file, r, "") }

// CheckOnly is Check for a box that does everything but one feature.
func CheckOnly(file string, r io.Reader, missing string) (*Running, []Finding) {
	var features []feature
	for _, f := range unsupported {
		if f.name == missing {
			features = append(features, f)
		}
	}
	run, found := Parse(file, r)
	found = append(found, run.validate(features)...)
	sortFindings(found)
	return run, found
}

// Unsupported returns the names in the table of unsupported features.
func Unsupported() []string {
	var names []string
	for _, f := range unsupported {
		names = append(names, f.name)
	}
	return names
}
