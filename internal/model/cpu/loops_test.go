package cpu

import (
	"maps"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// TestLoopsKeepTheirRegisters reads what the compiler makes of the inner loops of
// each instruction set. A vector type that the target lacks, or a block of more
// accumulators than registers, would move vectors to and from the stack at every
// step, at a fifth of the speed and with nothing else to show for it.
func TestLoopsKeepTheirRegisters(t *testing.T) {
	// The products and the recurrence leave the stack alone. The others have more
	// constants than there are registers: those may be read from the stack, as from
	// anywhere, but no vector may be written there.
	loops := map[string]bool{ // function: whether it may read the stack
		"block_1": false, "block_2": false, "block_4": false, "token": false, "start": false, "highest": false,
		"sum_exp": true, "swiglu": true, "gate": true, "rmsnorm": true, "prepare": true,
		"softplus_bias": true, "sigmoid_steps": true, "operands": true,
	}
	widest := map[string]string{"avx512": "block_12", "avx2": "block_6", "sse2": "block_4", "neon": "block_8"}
	for i, c := range compilers() {
		if i > 0 && testing.Short() {
			break // the first compiler is the one that builds the program
		}
		for _, set := range slices.Sorted(maps.Keys(widest)) {
			t.Run(c.name+"/"+set, func(t *testing.T) {
				target, ok := c.targets[set == "neon"]
				if !ok {
					t.Skipf("no C compiler for %s: install gcc-aarch64-linux-gnu or clang with libc6-dev-arm64-cross",
						set)
				}
				functions := assembly(t, target, "set_"+set+".c")
				want := maps.Clone(loops)
				want[widest[set]] = false
				for _, name := range slices.Sorted(maps.Keys(want)) {
					found := 0
					for _, body := range functions.of(name) {
						for _, loop := range body.innermost() {
							found++
							for _, line := range loop.onStack(set == "neon") {
								if !want[name] || stored(line) {
									t.Errorf("%s: a vector is on the stack: %s", name, line)
								}
							}
						}
					}
					if found == 0 {
						t.Errorf("%s has no loop of vector arithmetic", name)
					}
				}
			})
		}
	}
}

// compiler is a C compiler with what it takes to compile for x86 and for Arm.
type compiler struct {
	name    string
	targets map[bool][]string // by whether the target is Arm
}

func compilers() []compiler {
	gcc, clang := map[bool][]string{}, map[bool][]string{}
	arm := runtime.GOARCH == "arm64"
	if _, err := exec.LookPath("gcc"); err == nil {
		gcc[arm] = []string{"gcc"}
	}
	if _, err := exec.LookPath("aarch64-linux-gnu-gcc"); err == nil {
		gcc[true] = []string{"aarch64-linux-gnu-gcc"}
	}
	if _, err := exec.LookPath("clang"); err == nil {
		clang[arm] = []string{"clang"}
		if _, err := os.Stat("/usr/aarch64-linux-gnu/include"); err == nil {
			clang[true] = []string{"clang", "--target=aarch64-linux-gnu", "-isystem", "/usr/aarch64-linux-gnu/include"}
		}
	}
	return []compiler{{"gcc", gcc}, {"clang", clang}}
}

// instruction is one line of a function's assembly.
type instruction struct {
	op, args string
	to       string // the label that it may jump to
	ends     bool   // what follows is not reached from here
}

// function is its instructions and where its labels point.
type function struct {
	code   []instruction
	labels map[string]int
}

type functions map[string]*function

// of gives a function and the copies that the compiler made of it.
func (f functions) of(name string) []*function {
	var out []*function
	for n, body := range f {
		if n == name || strings.HasPrefix(n, name+".") {
			out = append(out, body)
		}
	}
	return out
}

var (
	cflags     = regexp.MustCompile(`(?m)^#cgo CFLAGS: (.*)$`)
	label      = regexp.MustCompile(`^([.\w]+):`)
	jump       = regexp.MustCompile(`^(j\w+|b|b\.\w+|b[a-z]{2}|cbn?z|tbn?z)$`)
	vector     = regexp.MustCompile(`%[xyz]mm\d|\b[qv]\d+\b`)
	arithmetic = regexp.MustCompile(`^(v?(mul|add|sub|div|max)ps|vf\w*ps|f(mla|mul|add|sub|div|cmgt)|bsl|bit|bif)$`)
	stack      = regexp.MustCompile(`\(%rsp|-\d+\(%rbp\)`)
	call       = regexp.MustCompile(`^(call|bl$|blr$|rep)`)
	armStack   = regexp.MustCompile(`\[(sp|x29)\b`)
	armStore   = regexp.MustCompile(`^st`)
)

// assembly compiles a file as the package is compiled.
func assembly(t *testing.T, command []string, file string) functions {
	t.Helper()
	source, err := os.ReadFile("set.go")
	if err != nil {
		t.Fatal(err)
	}
	flags := strings.Fields(cflags.FindStringSubmatch(string(source))[1])
	out, err := exec.Command(command[0], slices.Concat(command[1:], flags, []string{"-S", "-o", "-", file})...).Output()
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(command, " "), err)
	}
	all := functions{}
	var f *function
	for line := range strings.Lines(string(out)) {
		if m := label.FindStringSubmatch(line); m != nil {
			if !strings.HasPrefix(m[1], ".L") {
				f = &function{labels: map[string]int{}}
				all[m[1]] = f
			} else if f != nil {
				f.labels[m[1]] = len(f.code)
			}
			continue
		}
		line, _, _ = strings.Cut(line, " #")
		line, _, _ = strings.Cut(line, "//")
		if line = strings.TrimSpace(line); line == "" || line[0] == '.' || line[0] == '#' || f == nil {
			continue
		}
		op, args, _ := strings.Cut(strings.ReplaceAll(line, " ", "\t"), "\t")
		i := instruction{op: op, args: strings.TrimSpace(args)}
		if jump.MatchString(op) {
			at := max(strings.LastIndexAny(args, ",\t")+1, 0)
			i.to = args[at:]
			i.ends = op == "jmp" || op == "b"
		}
		i.ends = i.ends || strings.HasPrefix(op, "ret") || op == "br"
		f.code = append(f.code, i)
	}
	return all
}

// loop is the instructions of one.
type loop []instruction

// innermost gives the natural loops that have no other in them, compute on vectors and
// call nothing. Those that call memcpy are for a row's last floats.
func (f *function) innermost() []loop {
	n := len(f.code)
	next := func(i int) []int {
		var out []int
		if at, ok := f.labels[f.code[i].to]; ok && at < n {
			out = append(out, at)
		}
		if !f.code[i].ends && i+1 < n {
			out = append(out, i+1)
		}
		return out
	}
	before := make([][]int, n)
	for i := range n {
		for _, to := range next(i) {
			before[to] = append(before[to], i)
		}
	}
	// Whether the loop's head is on every way to its end: without it, the end is not reached.
	dominates := func(head, end int) bool {
		if head == 0 {
			return true
		}
		seen, todo := map[int]bool{0: true}, []int{0}
		for len(todo) > 0 {
			i := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			for _, to := range next(i) {
				if to != head && !seen[to] {
					seen[to], todo = true, append(todo, to)
				}
			}
		}
		return !seen[end]
	}
	bodies := map[int]map[int]bool{} // by head
	for i := range n {
		for _, head := range next(i) {
			if head > i || !dominates(head, i) {
				continue
			}
			body := bodies[head]
			if body == nil {
				body = map[int]bool{head: true}
				bodies[head] = body
			}
			for todo := []int{i}; len(todo) > 0; {
				at := todo[len(todo)-1]
				todo = todo[:len(todo)-1]
				if !body[at] {
					body[at] = true
					todo = append(todo, before[at]...)
				}
			}
		}
	}
	var out []loop
	for head, body := range bodies {
		inner := true
		for other := range bodies {
			inner = inner && (other == head || !body[other])
		}
		var code loop
		counts, calls := false, false
		for _, i := range slices.Sorted(maps.Keys(body)) {
			code = append(code, f.code[i])
			calls = calls || call.MatchString(f.code[i].op)
			counts = counts || arithmetic.MatchString(f.code[i].op) && vector.MatchString(f.code[i].args)
		}
		if inner && counts && !calls {
			out = append(out, code)
		}
	}
	return out
}

// onStack gives the instructions with a vector that is on the stack.
func (l loop) onStack(arm bool) []string {
	memory := stack
	if arm {
		memory = armStack
	}
	var out []string
	for _, i := range l {
		if vector.MatchString(i.args) && memory.MatchString(i.args) {
			out = append(out, i.op+" "+i.args)
		}
	}
	return out
}

// stored says whether an instruction writes to memory: on x86 its last operand is memory.
func stored(line string) bool {
	return armStore.MatchString(line) || strings.HasSuffix(line, ")")
}
