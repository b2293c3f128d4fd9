package curate

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"sync"

	"surprisal/internal/shard/pq"
	"surprisal/internal/usage"
)

// maxGroups bounds what --by may ask for: a group costs memory.
const maxGroups = 1 << 17

// groups numbers the values of the --by columns.
type groups struct {
	by    []string
	mu    sync.Mutex
	index map[string]int
	keys  []string
}

func newGroups(by []string) *groups {
	g := &groups{by: by, index: map[string]int{}}
	if len(by) == 0 {
		g.index[""], g.keys = 0, []string{""} // all rows
	}
	return g
}

func (g *groups) len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.keys)
}

// of numbers a key.
func (g *groups) of(key string) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	i, ok := g.index[key]
	if !ok {
		if i = len(g.keys); i == maxGroups {
			return 0, usage.Errorf("--by %s gives more than %d groups: name a column with fewer values",
				strings.Join(g.by,
					","), maxGroups)
		}
		key = strings.Clone(key)
		g.index[key] = i
		g.keys = append(g.keys, key)
	}
	return i, nil
}

// grouper numbers rows' groups; it is for one goroutine.
type grouper struct {
	g     *groups
	known map[string]int
	key   []byte
	out   []int
}

func (g *groups) grouper() *grouper { return &grouper{g: g, known: map[string]int{}} }

// rows gives the group of each of n rows from the --by columns' values.
func (r *grouper) rows(n int, by []*pq.Values) ([]int, error) {
	r.out = slices.Grow(r.out[:0], n)[:n]
	if len(by) == 0 {
		clear(r.out)
		return r.out, nil
	}
	for i := range n {
		r.key = r.key[:0]
		for _, v := range by {
			r.key = appendKey(r.key, v, i)
		}
		k, ok := r.known[string(r.key)]
		if !ok {
			var err error
			if k, err = r.g.of(string(r.key)); err != nil {
				return nil, err
			}
			r.known[string(r.key)] = k
		}
		r.out[i] = k
	}
	return r.out, nil
}

// appendKey appends a value: null, or its length and text.
func appendKey(key []byte, v *pq.Values, i int) []byte {
	if v.Null[i] {
		return append(key, 0)
	}
	var text []byte
	switch v.Kind {
	case pq.Text:
		text = v.Texts[i]
	case pq.Float:
		text = strconv.AppendFloat(nil, v.Floats[i], 'g', -1, 64)
	case pq.Bool:
		text = strconv.AppendBool(nil, v.Ints[i] != 0)
	default:
		text = strconv.AppendInt(nil, v.Ints[i], 10)
	}
	return append(binary.AppendUvarint(key, uint64(len(text))+1), text...)
}

// values takes a group's key apart; nil is a null.
func (g *groups) values(i int) []*string {
	var vals []*string
	for key := []byte(g.keys[i]); len(key) > 0; {
		n, used := binary.Uvarint(key)
		key = key[used:]
		if n == 0 {
			vals = append(vals, nil)
			continue
		}
		s := strings.ToValidUTF8(string(key[:n-1]), "�")
		vals, key = append(vals, &s), key[n-1:]
	}
	return vals
}

// name is a group's for people, empty for the only one.
func (g *groups) name(i int) string {
	var s []string
	for _, v := range g.values(i) {
		if v == nil {
			s = append(s, "(null)")
		} else {
			s = append(s, *v)
		}
	}
	return strings.Join(s, ", ")
}

// object is a group for machines.
func (g *groups) object(i int) map[string]*string {
	vals := g.values(i)
	if len(vals) == 0 {
		return nil
	}
	o := map[string]*string{}
	for k, v := range vals {
		o[g.by[k]] = v
	}
	return o
}

// sorted lists the groups by name.
func (g *groups) sorted() []int {
	all := make([]int, len(g.keys))
	for i := range all {
		all[i] = i
	}
	slices.SortFunc(all, func(a, b int) int {
		return cmp.Or(cmp.Compare(g.name(a), g.name(b)), cmp.Compare(g.keys[a], g.keys[b]))
	})
	return all
}

// checkBy refuses a --by that names nothing or a thing twice.
func checkBy(by []string) error {
	for i, b := range by {
		if b == "" || slices.Contains(by[:i], b) {
			return usage.Errorf("--by %s: name each column once", strings.Join(by, ","))
		}
	}
	return nil
}
