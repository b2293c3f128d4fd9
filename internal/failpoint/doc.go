// Package failpoint makes a program fail at a named place, to test what happens to its
// work. It does nothing, and costs nothing, unless the program is built with the tag
// failpoints.
//
// SURPRISAL_FAILPOINT lists places and actions:
//
//	before-rename=kill          the process kills itself (SIGKILL)
//	before-rename=stop          the process stops itself (SIGSTOP), until SIGCONT
//	before-rename=sleep:2s      it sleeps
//	mid-write=error:EIO         the place returns EIO, ENOSPC, EROFS or any other error
//	mid-write=kill@3            at the third hit; the default is the first
//	mid-write=error:EIO@1+      at the first hit and every later one
//
// Semicolons separate several of them.
package failpoint

// The places.
const (
	AfterFetch   = "after-fetch"   // a worker has received a job and recorded nothing
	MidForward   = "mid-forward"   // before a batch goes to the engine
	DeviceFault  = "device-fault"  // error: a CUDA engine's next kernel reads a bad address, which ends its context
	MidWrite     = "mid-write"     // before a row is written to the output
	BeforeRename = "before-rename" // the temporary file is complete and synced
	AfterRename  = "after-rename"  // the output has its name, but its folder is not synced
	BeforeRecord = "before-record" // the output is committed
	BeforeAck    = "before-ack"    // the job is recorded as done
	AfterAck     = "after-ack"

	AfterManifest = "after-manifest" // a dispatcher has written the manifest and queued nothing
	MidSubmit     = "mid-submit"     // before a job is published
	BeforeSuccess = "before-success" // everything is checked, _SUCCESS is not written
)
