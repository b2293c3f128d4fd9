package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"reflect"

	"github.com/parquet-go/parquet-go/format"
)

// sameAs compares the score files with those of an undisturbed run.
func (c *checker) sameAs(other string, list []job) error {
	p := c.r.promise("score files are the same as in "+other, "files")
	m, err := readManifest(other)
	if err != nil {
		return err
	}
	theirs := map[string]bool{}
	for _, j := range m.jobs() {
		theirs[j.output] = true
	}
	for _, j := range list {
		if !theirs[j.output] {
			p.breaks("%s is no job there: the runs were cut differently", j.output)
		}
		delete(theirs, j.output)
		if _, err := os.Lstat(c.path(j.output)); err != nil {
			continue // said already, or dead
		}
		p.Checked++
		if what := differ(c.path(j.output), filepath.Join(other, filepath.FromSlash(j.output)),
			m.Run == c.m.Run); what != "" {
			p.breaks("%s: %s", j.output, what)
		}
	}
	for o := range theirs {
		p.breaks("%s is a job there alone: the runs were cut differently", o)
	}
	return nil
}

// idKeys are the metadata that names run and job, or is a digest of it.
var idKeys = map[string]bool{"surprisal.run": true, "surprisal.job": true, "surprisal.file": true}

// differ says in what two score files differ, or nothing.
func differ(a, b string, sameRun bool) string {
	x, err := os.ReadFile(a)
	if err != nil {
		return err.Error()
	}
	y, err := os.ReadFile(b)
	if err != nil {
		return err.Error()
	}
	if bytes.Equal(x, y) {
		return ""
	}
	if sameRun {
		return fmt.Sprintf("%d and %d bytes, the first difference at %d", len(x), len(y), firstDifference(x, y))
	}
	xEnd, yEnd := footerStart(x), footerStart(y)
	if xEnd != yEnd || !bytes.Equal(x[:xEnd], y[:yEnd]) {
		return fmt.Sprintf("the pages differ, first at byte %d", firstDifference(x[:xEnd], y[:yEnd]))
	}
	xMeta, err := withoutIDs(a)
	if err != nil {
		return err.Error()
	}
	yMeta, err := withoutIDs(b)
	if err != nil {
		return err.Error()
	}
	if !reflect.DeepEqual(xMeta, yMeta) {
		return "the footers differ in more than the ids of run and job"
	}
	return ""
}

func firstDifference(x, y []byte) int {
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return i
		}
	}
	return min(len(x), len(y))
}

func footerStart(b []byte) int {
	if len(b) < 12 {
		return 0
	}
	return max(0, len(b)-8-int(binary.LittleEndian.Uint32(b[len(b)-8:])))
}

// withoutIDs is a file's footer with the values of idKeys taken out.
func withoutIDs(path string) (*format.FileMetaData, error) {
	t, err := openTable(path)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	m := *t.Metadata()
	kv := make([]format.KeyValue, len(m.KeyValueMetadata))
	for i, x := range m.KeyValueMetadata {
		if idKeys[x.Key] {
			x.Value = ""
		}
		kv[i] = x
	}
	m.KeyValueMetadata = kv
	return &m, nil
}
