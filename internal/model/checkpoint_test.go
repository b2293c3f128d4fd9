package model_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"surprisal/internal/model"
	"surprisal/internal/testkit/ckptgen"
)

const goldens = "../../testdata/goldens"

// loadAll converts every tensor to float32, by name.
func loadAll(path string, cfg model.Config) (map[string][]float32, error) {
	c, err := model.Open(path, cfg)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	out := map[string][]float32{}
	for _, s := range cfg.Shapes() {
		t, err := c.Tensor(s.Name)
		if err != nil {
			return nil, err
		}
		dst := make([]float32, t.Len())
		if err := t.Float32(dst); err != nil {
			return nil, err
		}
		if v, ok := t.Float32View(); ok && !slices.Equal(v, dst) {
			return nil, fmt.Errorf("%s: the view differs from the copy", s.Name)
		}
		half := make([]uint16, t.Len())
		if err := t.BFloat16(half); err != nil {
			return nil, err
		}
		for i, u := range half {
			// Half a unit in the last of 8 places, or exact for subnormals' sake.
			if d := math.Abs(float64(math.Float32frombits(uint32(u)<<16) - dst[i])); d > math.Abs(float64(dst[i]))/256 {
				return nil, fmt.Errorf("%s: bfloat16 of %v is off by %v", s.Name, dst[i], d)
			}
		}
		out[s.Name] = dst
	}
	return out, nil
}

func klaConfig(t testing.TB) model.Config {
	cfg, err := model.LoadConfig(filepath.Join(goldens, "kla"))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestGoldenFoldersOpen(t *testing.T) {
	dirs, _ := filepath.Glob(goldens + "/*/" + model.CheckpointName)
	if len(dirs) < 11 {
		t.Fatalf("found %d golden folders", len(dirs))
	}
	for _, d := range dirs {
		d = filepath.Dir(d)
		cfg, err := model.LoadConfig(d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := loadAll(d, cfg); err != nil {
			t.Errorf("%s: %v", d, err)
		}
	}
}

func TestContainersLoadTheSame(t *testing.T) {
	cfg := klaConfig(t)
	want, err := loadAll(filepath.Join(goldens, "kla"), cfg)
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(goldens + "/loader/*.pth")
	if len(files) < 9 {
		t.Fatalf("found %d containers", len(files))
	}
	for _, f := range files {
		got, err := loadAll(f, cfg)
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		tol := 0.0
		if filepath.Base(f) == "half.pth" {
			tol = 1.0 / (1 << 11) // half a unit in the last of 11 places
		}
		for name, w := range want {
			for i, v := range got[name] {
				if d := math.Abs(float64(v - w[i])); d > tol*math.Abs(float64(w[i]))+tol*1e-4 {
					t.Fatalf("%s: %s[%d] = %v, want %v", f, name, i, v, w[i])
				}
			}
		}
	}
}

// refuseEnv makes the test binary load one file and print the error: so that
// its memory can be measured alone.
const refuseEnv = "SURPRISAL_TEST_REFUSE"

func TestMain(m *testing.M) {
	if f := os.Getenv(refuseEnv); f != "" {
		cfg, err := model.LoadConfig(filepath.Join(goldens, "kla"))
		if err == nil {
			_, err = loadAll(f, cfg)
		}
		if !errors.Is(err, model.ErrCheckpoint) {
			fmt.Printf("not ErrCheckpoint: %v\n", err)
			os.Exit(1)
		}
		fmt.Println(err)
		fmt.Fprint(os.Stderr, peakMiB())
		os.Exit(0)
	}
	if d := os.Getenv(benchEnv); d != "" {
		benchChild(d)
	}
	os.Exit(m.Run())
}

func TestBadFilesAreRefused(t *testing.T) {
	say := map[string]string{
		"executes_code.pth": "posix.system", "missing_tensor.pth": "is missing", "truncated.pth": "truncated",
		"int8_weights.pth":      "int8",
		"unexpected_tensor.pth": "unexpected tensor", "nan_weights.pth": "NaN", "wrong_shape.pth": "shape is",
		"storage_too_short.pth": "storage has", "not_a_checkpoint.pth": "not a checkpoint",
		"deflated_entries.pth": "compressed", "empty.pth": "empty",
	}
	files, _ := filepath.Glob(goldens + "/loader/bad/*.pth")
	if len(files) != len(say) {
		t.Fatalf("found %d bad files, know %d", len(files), len(say))
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) { refused(t, f, say[filepath.Base(f)]) })
	}
	if p, _ := filepath.Glob("pwned"); p != nil {
		t.Error("a checkpoint ran code")
	}
}

// refused loads a file in a process of its own and holds it to one line that
// contains want, 2 s and 256 MiB.
func refused(t *testing.T, file, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), refuseEnv+"="+file)
	var peak bytes.Buffer
	cmd.Stderr = &peak
	out, err := cmd.Output()
	line := strings.TrimSuffix(string(out), "\n")
	if err != nil || strings.Contains(line, "\n") || !strings.Contains(line, want) || len(line) > 400 {
		t.Errorf("want one line with %q, got %v: %s", want, err, out)
	}
	// The processor's time, since the machine may be busy with other tests.
	took := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	mib, err := strconv.Atoi(peak.String())
	t.Logf("%v, %d MiB: %s", took.Round(time.Millisecond), mib, line)
	if !raceDetector() && (err != nil || took > 2*time.Second || mib > 256) {
		t.Errorf("took %v and %s MiB", took, peak.String())
	}
}

// peakMiB is this process's peak resident memory. Its parent's own takes part in
// what the parent is told, hence not by wait.
func peakMiB() int {
	b, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	kib := -1
	_, _ = fmt.Sscan(rest, &kib)
	return kib >> 10
}

// raceDetector takes memory and time of its own.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool {
		return s.Key == "-race" &&
			s.Value == "true"
	})
}

// tiny is a shape whose checkpoint is a few KB.
func tiny() model.Config {
	c, _ := model.Named("tiny")
	c.VocabSize, c.PaddedVocabSize, c.Layers, c.Width, c.Inner, c.Heads, c.VHeads, c.K, c.V = 5, 8, 1, 4, 6, 1, 2, 4, 8
	return c
}

func TestGeneratedFolder(t *testing.T) {
	for _, d := range []model.DType{model.Float32, model.BFloat16} {
		dir, again := t.TempDir(), t.TempDir()
		cfg := tiny()
		for _, p := range []string{dir, again} {
			if err := ckptgen.Write(p, cfg, ckptgen.Options{DType: d, Seed: 7}); err != nil {
				t.Fatal(err)
			}
		}
		a, _ := os.ReadFile(filepath.Join(dir, model.CheckpointName))
		b, _ := os.ReadFile(filepath.Join(again, model.CheckpointName))
		if !bytes.Equal(a, b) {
			t.Error("equal seeds gave different files")
		}
		got, err := model.LoadConfig(dir)
		if err != nil || got != cfg {
			t.Errorf("config is %+v, %v, want %+v", got, err, cfg)
		}
		if _, err := loadAll(dir, cfg); err != nil {
			t.Error(err)
		}
		c, err := model.Open(dir, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, s := range cfg.Shapes() {
			w, err := c.Tensor(s.Name)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := w.Float32View(); ok != (d == model.Float32) {
				t.Errorf("%s %s: view is %v: its data are not where they should be", d, s.Name, ok)
			}
			want, raw := make([]float32, w.Len()), make([]byte, d.Size()*w.Len())
			if err := errors.Join(w.Float32(want), w.Copy(raw, 0)); err != nil {
				t.Fatal(err)
			}
			for i, x := range want {
				b := make([]byte, 4) // bfloat16 is float32's upper half
				copy(b[4-d.Size():], raw[i*d.Size():])
				if math.Float32frombits(binary.LittleEndian.Uint32(b)) != x {
					t.Fatalf("%s %s: element %d is not as it lies in the file", d, s.Name, i)
				}
			}
		}
	}
}

// A file that shrinks after it was opened must not take the process with it.
func TestFileCutShort(t *testing.T) {
	dir := t.TempDir()
	cfg := tiny()
	cfg.VocabSize, cfg.PaddedVocabSize, cfg.Width = 4096, 4096, 64
	if err := ckptgen.Write(dir, cfg, ckptgen.Options{}); err != nil {
		t.Fatal(err)
	}
	c, err := model.Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := os.Truncate(filepath.Join(dir, model.CheckpointName), 8192); err != nil {
		t.Fatal(err)
	}
	w, _ := c.Tensor("transformer.ln_f.weight")
	if err := w.Float32(make([]float32, w.Len())); !errors.Is(err, model.ErrCheckpoint) {
		t.Errorf("got %v", err)
	}
	if _, ok := w.Float32View(); ok {
		t.Error("view of bytes that are gone")
	}
	if err := w.Copy(make([]byte, 4*w.Len()), 0); !errors.Is(err, model.ErrCheckpoint) {
		t.Errorf("copied: %v", err)
	}
}

func TestClosed(t *testing.T) {
	cfg := klaConfig(t)
	c, err := model.Open(filepath.Join(goldens, "kla"), cfg)
	if err != nil {
		t.Fatal(err)
	}
	w, _ := c.Tensor("lm_head.weight")
	if err := w.Float32(make([]float32, 3)); err == nil {
		t.Error("a short slice was filled")
	}
	if _, err := c.Tensor("model.lm_head.weight"); !errors.Is(err, model.ErrCheckpoint) {
		t.Errorf("unknown name: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Float32(make([]float32, w.Len())); err == nil {
		t.Error("a closed checkpoint was read")
	}
	if err := w.Copy(make([]byte, w.DType.Size()), 0); err == nil {
		t.Error("a closed checkpoint was copied")
	}
	w.Release()
	if err := c.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func TestOpenMissing(t *testing.T) {
	if _, err := model.Open(t.TempDir(), tiny()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := model.Open(t.TempDir(), model.Config{}); err == nil {
		t.Error("an empty config was taken")
	}
}

// Small files that ask for much: each opcode may cost a few hundred bytes, and an
// error may print all of a value.
func TestPickleBombs(t *testing.T) {
	const n = 1<<18 - 100
	long := "X\xff\x00\x00\x00" + strings.Repeat("y", 255) + "q\x00"
	for name, text := range map[string]string{
		"marks":      strings.Repeat("(", n) + ".",
		"dicts":      strings.Repeat("}", n) + ".",
		"tuples":     strings.Repeat("(t", n/2) + ".",
		"ordered":    "ccollections\nOrderedDict\nq\x00" + strings.Repeat("h\x00)R", n/3) + ".",
		"references": "(" + long + strings.Repeat("h\x00", n) + "t)R.",
		"attributes": "ccollections\nOrderedDict\n)R}q\x00(" + strings.Repeat("K\x01N", n/3) + "u" +
			strings.Repeat("h\x00b", n/9) + ".",
	} {
		t.Run(name, func(t *testing.T) {
			f := filepath.Join(t.TempDir(), "bomb.pth")
			if err := os.WriteFile(f, []byte("\x80\x02"+text), 0o600); err != nil {
				t.Fatal(err)
			}
			refused(t, f, "")
		})
	}
}
