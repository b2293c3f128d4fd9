// Package outdir is a run's output, OUT: a local folder or a prefix in a bucket. Score
// files are published there, the manifest and _SUCCESS are written there, and what is
// there is listed, inspected, moved aside and removed. Commands that write copies of
// inputs use the same folders through Dest.
//
// Every file appears whole or not at all, under a name that it never takes from
// another readable score file. No name and no link inside a folder leads out of it.
//
// Glossary:
//
//   - Manifest: _manifest.json, what a run is; a compressed second copy is kept.
//   - Temporary: a hidden file that a writer has not published yet.
//   - Entry: one file in OUT, with its kind.
//   - Quarantine: the hidden folder to which damaged files are moved.
//   - Dest: a folder or prefix for files other than score files.
//
// Publishing a score file:
//
//	temporary --sync, link--> published --Inspect--> counted
//	    |                         |
//	    +--crash: RemoveTemporaries  +--second attempt: the same scores are
//	                                    dropped, others are ErrConflict
package outdir
