// Package console is how people command the box: sessions on a terminal, a pipe
// or SSH, with the ASA's modes, prompts, editing and paging, and the box's
// configuration as text, which they change together and which is kept on flash.
//
// What a reader may get wrong: a Session knows nothing of its transport but
// whether it is a terminal. Who may log in is asked before there is a Session;
// what a user may do is a matter of levels in it.
package console
