// Package cli is what the two programs' command lines share: signals, the logger,
// flags that reach NATS and that serve metrics, settings from the environment and a
// config file, exit codes. One behaviour for both.
//
// A setting comes from the first of these that has it: the command line, the
// environment (SURPRISAL_<FLAG>), the config file, the flag's default. A variable
// that is set to nothing hides the config file's value.
//
// The first signal drains: nothing new is begun, and what is in hand is finished.
// The second one stops at once.
package cli
