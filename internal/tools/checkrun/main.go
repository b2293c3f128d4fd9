// Command checkrun holds a run's output folder to what is promised of it:
//
//	checkrun [--same-as OUT2] [--dead FILE] [--json] OUT
//
// It reads manifest, inputs and score files with code of its own, so that it
// does not trust the code that wrote them. It prints a table of the promises and
// exits with 1 if one is broken, with 2 if it could not look.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet("checkrun", flag.ContinueOnError)
	f.SetOutput(stderr)
	sameAs := f.String("same-as", "",
		"an undisturbed run's output folder: score files must be the same byte for byte, "+
			"but for the ids of run and job")
	dead := f.String("dead", "", "JSON lines of the dead jobs, as `dispatcher dead export` writes them")
	asJSON := f.Bool("json", false, "print as JSON")
	most := f.Int("most", 20, "violations printed of each promise")
	f.Usage = func() {
		fmt.Fprintln(stderr, "usage: checkrun [--same-as OUT2] [--dead FILE] [--json] OUT")
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		return 2
	}
	if f.NArg() != 1 {
		f.Usage()
		return 2
	}
	r, err := check(f.Arg(0), *sameAs, *dead)
	if err != nil {
		fmt.Fprintln(stderr, "checkrun:", err)
		return 2
	}
	if err := r.print(stdout, *asJSON, *most); err != nil {
		fmt.Fprintln(stderr, "checkrun:", err)
		return 2
	}
	if r.Violations > 0 {
		return 1
	}
	return 0
}

// promise is one line of the table.
type promise struct {
	Name    string   `json:"promise"`
	Checked int64    `json:"checked"` // rows, files or jobs, as Unit says
	Unit    string   `json:"unit"`
	Broken  []string `json:"broken,omitempty"`
}

func (p *promise) breaks(format string, a ...any) {
	p.Broken = append(p.Broken, fmt.Sprintf(format, a...))
}

// result is the whole table, in the order it is printed.
type result struct {
	Out        string     `json:"out"`
	Run        string     `json:"run"`
	Promises   []*promise `json:"promises"`
	Violations int        `json:"violations"`
}

func (r *result) promise(name, unit string) *promise {
	p := &promise{Name: name, Unit: unit}
	r.Promises = append(r.Promises, p)
	return p
}

func (r *result) print(w io.Writer, asJSON bool, most int) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, p := range r.Promises {
		state := "ok"
		if n := len(p.Broken); n > 0 {
			state = fmt.Sprintf("BROKEN %d times", n)
		}
		fmt.Fprintf(t, "%s\t%d %s\t%s\n", p.Name, p.Checked, p.Unit, state)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, p := range r.Promises {
		for i, b := range p.Broken {
			if i == most {
				fmt.Fprintf(w, "%s: and %d more\n", p.Name, len(p.Broken)-i)
				break
			}
			fmt.Fprintf(w, "%s: %s\n", p.Name, b)
		}
	}
	_, err := fmt.Fprintf(w, "run %s: %d violations\n", r.Run, r.Violations)
	return err
}
