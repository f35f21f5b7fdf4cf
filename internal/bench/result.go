package bench

import "sibyl/internal/meter"

// Format marks a result file.
const Format = "sibyl-bench/1"

// Result is a whole run, as --json prints it and --compare reads it.
type Result struct {
	Format   string           `json:"format"`
	Sibyl    string           `json:"sibyl"`
	Machine  string           `json:"machine"`
	Subject  string           `json:"subject"`
	Engine   string           `json:"engine"`
	Contract string           `json:"contract"`
	Scheme   string           `json:"scheme"`
	Mode     string           `json:"mode"`
	Threads  int              `json:"threads"`
	Load     []float64        `json:"load_s"` // opening the model, each time; the first may have read a cold disk
	Work     Work             `json:"work"`
	Limits   meter.Limits     `json:"limits"` // mean of before and after
	Fallback map[string]int64 `json:"fallbacks,omitempty"`
	Rows     []Row            `json:"rows"`
	Compared []Ratio          `json:"compared,omitempty"`
}

// Ratio holds a row against the same row of an earlier run.
type Ratio struct {
	Op
	Threads int     `json:"threads"`
	Before  float64 `json:"tok_s_before"`
	Now     float64 `json:"tok_s_now"`
	Ratio   float64 `json:"ratio"`
	// ByLimit is the ratio of the shares of the machine's limit: what is left when the machine itself was slower or faster.
	ByLimit float64 `json:"ratio_of_shares,omitempty"`
	Overlap bool    `json:"spreads_overlap"` // the repetitions of both runs overlap: the difference may be noise
}

// Compare pairs the rows of r with those of an earlier run by op, size and threads; rows without a partner are left out.
func (r *Result) Compare(before *Result) {
	for _, now := range r.Rows {
		for _, old := range before.Rows {
			if old.Op != now.Op || old.Threads != now.Threads || old.TokensPerSecond <= 0 {
				continue
			}
			c := Ratio{Op: now.Op, Threads: now.Threads, Before: old.TokensPerSecond, Now: now.TokensPerSecond,
				Ratio:   now.TokensPerSecond / old.TokensPerSecond,
				Overlap: now.Least <= old.Most && old.Least <= now.Most}
			switch {
			case old.ShareRead > 0:
				c.ByLimit = now.ShareRead / old.ShareRead
			case old.ShareFMA > 0:
				c.ByLimit = now.ShareFMA / old.ShareFMA
			}
			r.Compared = append(r.Compared, c)
		}
	}
}
