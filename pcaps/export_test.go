package pcaps

// MakeSCCP is what lists write SCCP messages with.
var MakeSCCP = makeSCCP
