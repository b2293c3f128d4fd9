// Package audit examines what runs left behind and what they depend on:
//
//	Verify          reads a run's manifest, inputs and score files again, and repairs
//	CollectGarbage  deletes files and runs that nobody needs
//	Diagnose        checks NATS, workers, model and OUT before a run
//
// It stands above dispatch: it takes dispatch's locks before it changes anything, and
// rescores rows and requeues jobs through it.
//
// Words:
//
//	finding     one thing that is wrong, with its remedy
//	check       one thing that Diagnose looked at
//	quarantine  to move a file of OUT into a hidden folder of OUT
//	rescore     to score sampled rows again and compare all bits
package audit
