// Package failpoint makes a program fail at a named place, for tests of what then
// becomes of its work. It does nothing, and costs nothing, unless the program is
// built with the tag failpoints.
//
// SURPRISAL_FAILPOINT names places and what to do there:
//
//	before-rename=kill          the process kills itself (SIGKILL)
//	before-rename=stop          the process stops itself (SIGSTOP), until SIGCONT
//	before-rename=sleep:2s      it sleeps
//	mid-write=error:EIO         the place fails: EIO, ENOSPC, EROFS or any other word
//	mid-write=kill@3            the third time it comes there; without, the first
//	mid-write=error:EIO@1+      the first time and every later one
//
// Several are separated by semicolons.
package failpoint

// The places.
const (
	AfterFetch   = "after-fetch"   // a worker has a job's message, nothing recorded
	MidForward   = "mid-forward"   // before a batch goes to the engine
	MidWrite     = "mid-write"     // before a row goes into the output
	BeforeRename = "before-rename" // the temporary is whole and synced
	AfterRename  = "after-rename"  // the output has its name, its folder is not synced
	BeforeRecord = "before-record" // the output is committed
	BeforeAck    = "before-ack"    // it is recorded as done
	AfterAck     = "after-ack"

	AfterManifest = "after-manifest" // a dispatcher has written the manifest, nothing queued
	MidSubmit     = "mid-submit"     // before a job is published
	BeforeSuccess = "before-success" // all is checked, _SUCCESS is not written
)
