package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// flags are those of a program under test.
type flags struct {
	name  string
	count int
	list  []string
}

// load runs a program with args in a folder that holds file as surprisal.yaml.
func load(t *testing.T, file string, args ...string) (flags, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if file != "" {
		if err := os.WriteFile(configFile, []byte(file), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	f := new(flags)
	cmd := &cobra.Command{Use: "p", SilenceErrors: true, SilenceUsage: true}
	ConfigFlag(cmd.Flags())
	cmd.Flags().StringVar(&f.name, "the-name", "default", "")
	cmd.Flags().IntVar(&f.count, "count", 1, "")
	cmd.Flags().StringSliceVar(&f.list, "list", nil, "")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return Load(cmd, []string{"other"}) }
	cmd.RunE = func(*cobra.Command, []string) error { return nil }
	cmd.SetArgs(args)
	err := cmd.Execute()
	return *f, err
}

func TestOrder(t *testing.T) {
	for name, c := range map[string]struct {
		env, file string
		args      []string
		want      string
	}{
		"default":               {want: "default"},
		"file":                  {file: "the-name: file", want: "file"},
		"environment over file": {env: "env", file: "the-name: file", want: "env"},
		"flag over all": {env: "env", file: "the-name: file", args: []string{"--the-name", "flag"},
			want: "flag"},
		"empty variable over file": {env: "-", file: "the-name: file", want: "default"},
		"no file asked for":        {file: "the-name: file", args: []string{"--config="}, want: "default"},
		"the other program's flag": {file: "other: x\nthe-name: file", want: "file"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.env != "" {
				t.Setenv("SURPRISAL_THE_NAME", strings.Trim(c.env, "-"))
			}
			f := flagsOf(t, c.file, c.args...)
			if f.name != c.want {
				t.Errorf("%q, want %q", f.name, c.want)
			}
		})
	}
}

// flagsOf is load where it must not fail.
func flagsOf(t *testing.T, file string, args ...string) flags {
	t.Helper()
	f, err := load(t, file, args...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestLists(t *testing.T) {
	if f := flagsOf(t, "list: [a, b c]\ncount: 3"); len(f.list) != 2 || f.list[1] != "b c" || f.count != 3 {
		t.Errorf("%+v", f)
	}
	t.Setenv("SURPRISAL_LIST", "x,y z")
	if f := flagsOf(t, "list: [a, b]"); len(f.list) != 2 || f.list[1] != "y z" {
		t.Errorf("%+v", f)
	}
}

func TestRefused(t *testing.T) {
	for file, says := range map[string]string{
		"name: x": `"name"`, "count: many": "--count", "- a": "config file", "count: {a: 1}": `"count.a"`,
	} {
		_, err := load(t, file)
		if Code(err) != ExitUsage || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", file, err)
		}
	}
	if _, err := load(t, "", "--config", filepath.Join(t.TempDir(), "gone.yaml")); Code(err) != ExitUsage {
		t.Error(err)
	}
	t.Setenv("SURPRISAL_COUNT", "many")
	if _, err := load(t, ""); Code(err) != ExitUsage || !strings.Contains(err.Error(), "SURPRISAL_COUNT") {
		t.Error(err)
	}
}
