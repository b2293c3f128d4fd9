//go:build failpoints

package failpoint

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{"a", "a=", "a=jump", "a=kill@0", "a=kill@x", "a=sleep", "a=sleep:soon"} {
		if p, err := parse(s); err == nil {
			t.Errorf("%q: %+v", s, p)
		}
	}
	if p, err := parse(" a=kill@3; b=error:EIO@2+ ;"); err != nil || len(p) != 2 || p["a"].from != 3 || !p["b"].on {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestHit runs itself with a point set.
func TestHit(t *testing.T) {
	if os.Getenv("SURPRISAL_FAILPOINT") != "" {
		for i := 1; i <= 3; i++ {
			err := Hit(MidWrite)
			if want := i >= 2; errors.Is(err, syscall.EIO) != want {
				t.Errorf("hit %d: %v", i, err)
			}
		}
		_ = Hit(BeforeAck)
		return
	}
	for value, killed := range map[string]bool{"mid-write=error:EIO@2+": false,
		"mid-write=error:EIO@2+;before-ack=kill": true} {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestHit$")
		cmd.Env = append(os.Environ(), "SURPRISAL_FAILPOINT="+value)
		out, err := cmd.CombinedOutput()
		st, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if killed != (st.Signaled() && st.Signal() == syscall.SIGKILL) || !killed && err != nil {
			t.Errorf("%s: %v\n%s", value, err, out)
		}
	}
}
