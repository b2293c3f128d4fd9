package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"surprisal/internal/dispatch"
	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
	"surprisal/internal/shard"
)

// stored looks at each record as the server takes it: the history of a job must
// be one that the states allow.
func (s *simulation) stored(stream, subject string, data []byte) {
	if stream != "KV_"+jobs.JobBucket || len(data) == 0 {
		return
	}
	s.records.Lock()
	defer s.records.Unlock()
	next, err := record.DecodeJob(data)
	if err != nil {
		s.wrong = append(s.wrong, err.Error())
		return
	}
	prev, has := s.history[next.Job]
	s.history[next.Job] = next
	if !has || prev.Seq != next.Seq || !prev.Queued.Equal(next.Queued) {
		prev = record.Job{}
	}
	bad := func(format string, a ...any) {
		s.wrong = append(s.wrong, fmt.Sprintf("job %s: %s\n before %+v\n after  %+v", next.Job,
			fmt.Sprintf(format, a...), prev, next))
	}
	own := prev.Lease == next.Lease && next.Lease != ""
	failed, lost := prev.Failed, prev.Lost
	switch next.State {
	case record.StateRunning:
		if prev.State == record.StateRunning && !own {
			lost++
		}
		if next.Failed > failed {
			bad("an attempt failed that nobody made")
		}
	case record.StateFailed:
		if !own {
			bad("a lease that was replaced gave the job back")
		}
		if prev.State != record.StateFailed {
			failed++
		}
	case record.StateWaiting:
		if !own && prev.State != record.StateDead && prev.State != "" {
			bad("a lease that was replaced gave the job back")
		}
	case record.StateDead:
		if prev.State == record.StateDone {
			bad("a job that was done died")
		}
		if prev.State == record.StateRunning && own {
			failed++
		} else if prev.State == record.StateRunning { // the dispatcher found it over
			lost++
		}
		if why := s.mayDie(next); why != "" {
			bad("%s", why)
		}
	case record.StateDone:
		failed, lost = max(failed, next.Failed), max(lost, next.Lost)
	}
	if next.Failed > failed || next.Lost > lost {
		bad("%d failed, %d lost at most", failed, lost)
	}
}

// allSettled: each job is on record as done or dead, or its file is there, which
// is all that the dispatcher's last look wants.
func (s *simulation) allSettled() bool {
	settled := map[string]bool{}
	s.records.Lock()
	for _, st := range s.history {
		if st.State == record.StateDone || st.State == record.StateDead {
			settled[st.Job] = true
		}
	}
	s.records.Unlock()
	for _, j := range s.m.Jobs() {
		if _, err := os.Stat(filepath.Join(s.m.Out, j.Output)); err != nil && !settled[j.ID] {
			return false
		}
	}
	return true
}

// mayDie says why a job may not be dead with these attempts, if so.
func (s *simulation) mayDie(st record.Job) string {
	most := func(v, d int) int {
		if v == 0 {
			return d
		}
		return v
	}
	deliver := uint64(most(s.top.MaxDeliver, 1000))
	switch {
	case st.Failed >= s.top.MaxAttempts && strings.HasPrefix(st.Error, "attempt "):
	case st.Lost >= s.top.MaxLost && strings.Contains(st.Error, "workers vanished"):
	case st.Delivery >= deliver && strings.Contains(st.Error, "MaxDeliver"):
	default:
		return fmt.Sprintf("it may not be dead yet: of %d attempts %d failed, of %d workers %d were lost, "+
			"of %d deliveries %d were made: %s",
			s.top.MaxAttempts, st.Failed, s.top.MaxLost, st.Lost, deliver, st.Delivery, st.Error)
	}
	return ""
}

// check holds what is left to what was promised.
func (s *simulation) check(sum *dispatch.Summary) {
	bad := s.bad
	for _, w := range s.wrong {
		bad("%s", w)
	}
	c := s.net.Conn("checker")
	log := s.logger("checker")
	client := jobs.New(conn.Wrap(c, log), c.JetStream(), conn.Config{Log: log})
	defer client.Close()
	records := map[string]record.Job{}
	if err := client.JobStates(s.ctx, s.m.Run, func(st record.Job) { records[st.Job] = st }); err != nil {
		bad("%v", err)
	}
	letters := map[string]record.DeadLetter{}
	list, err := client.Dead(s.ctx, s.m.Run)
	if err != nil {
		bad("%v", err)
	}
	for _, l := range list {
		letters[l.ID] = l
	}
	dead := map[string]dispatch.DeadJob{}
	for _, d := range sum.DeadJobs {
		dead[d.Job] = d
	}
	var totals shard.Totals
	planned, committed, late := s.m.Jobs(), 0, 0
	outputs := map[string]bool{}
	for _, j := range planned {
		outputs[filepath.FromSlash(j.Output)] = true
		got, err := shard.Verify(s.ctx, j, true)
		_, isDead := dead[j.ID]
		switch {
		case err == nil && isDead:
			// Its zombie may have come to life after the run was summed up.
			late++
			if records[j.ID].State != record.StateDone {
				bad("job %s is dead and committed", j.ID)
			}
		case err == nil:
			committed++
			totals.Add(got.Totals)
			if err := s.scores(j); err != nil {
				bad("job %s: %v", j.ID, err)
			}
			if st := records[j.ID].State; st == record.StateDead {
				bad("job %s is committed, its record says %s", j.ID, st)
			}
		case !errors.Is(err, fs.ErrNotExist):
			bad("job %s: %v", j.ID, err)
		case !isDead:
			bad("job %s is neither committed nor dead: %+v", j.ID, records[j.ID])
		default:
			if l, ok := letters[j.ID]; !ok || l.Reason == "" {
				bad("dead job %s has no letter that says why: %+v", j.ID, records[j.ID])
			}
			if st := records[j.ID]; st.State != record.StateDead {
				bad("job %s is dead, its record says %+v", j.ID, st)
			}
		}
	}
	if committed+len(dead) != len(planned) || sum.Jobs != len(planned) {
		bad("%d jobs planned, %d committed, %d dead, the summary has %d", len(planned), committed, len(dead), sum.Jobs)
	}
	if sum.Complete != (len(dead) == 0) {
		bad("complete: %v, with %d dead", sum.Complete, len(dead))
	}
	if sum.Documents != totals.Documents || sum.Tokens != totals.Tokens || sum.FailedRows != totals.Failed {
		bad("the summary has %d documents, %d tokens, %d failed rows; the files %d, %d, %d", sum.Documents, sum.Tokens,
			sum.FailedRows,
			totals.Documents, totals.Tokens, totals.Failed)
	}
	want := record.RunComplete
	if !sum.Complete {
		want = record.RunFailed
	}
	// Another who waited may have seen what came late.
	seenLate := committed+late == len(planned)
	if r, err := client.Run(s.ctx, s.m.Run); err != nil || r.State != want && !(seenLate &&
		r.State == record.RunComplete) {
		bad("the run's record says %s (%v), want %s", r.State, err, want)
	}
	s.files(outputs, sum.Complete, seenLate, bad)
}

// files checks that OUT holds nothing else.
func (s *simulation) files(outputs map[string]bool, complete, orNot bool, bad func(string, ...any)) {
	success := false
	err := filepath.WalkDir(s.m.Out, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(s.m.Out, path)
		if err != nil {
			return err
		}
		name := d.Name()
		switch {
		case outputs[rel], strings.HasPrefix(rel, "_manifest"), strings.HasPrefix(rel, ".surprisal"),
			strings.HasPrefix(rel, "."):
		case rel == score.SuccessName:
			success = true
		case strings.HasPrefix(name, ".rows-") && strings.HasSuffix(name, ".tmp") && s.crashes > 0:
		default:
			bad("what is %s?", rel)
		}
		return nil
	})
	if err != nil || success != complete && !orNot {
		bad("_SUCCESS is there: %v (%v)", success, err)
	}
}

// scores checks a job's file, row by row.
func (s *simulation) scores(j score.Job) error {
	row := j.First
	err := shard.ReadScores(s.ctx, filepath.Join(j.Out, filepath.FromSlash(j.Output)), func(sc score.Score) error {
		// As make_fixtures.py makes them.
		sum, tokens := 0.0, int64(0)
		if row%9 != 4 {
			for k := range row%6 - 1 {
				a, b := int32((row*31+k)%49152), int32((row*31+k+1)%49152)
				sum, tokens = sum+float64(simNLL(a, b)), tokens+1
			}
		}
		if sc.Row != row || sc.Tokens != tokens || sc.SumNLL != sum {
			return fmt.Errorf("row %d has %d tokens, %v; want row %d, %d, %v", sc.Row, sc.Tokens, sc.SumNLL, row,
				tokens, sum)
		}
		row++
		return nil
	})
	if err == nil && row != j.Last+1 {
		err = fmt.Errorf("it ends before row %d, want %d", row, j.Last+1)
	}
	return err
}
