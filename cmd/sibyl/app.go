package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"sibyl/internal/inputerr"
	"sibyl/internal/kernels"
	"sibyl/internal/mmap"
	"sibyl/tokenizer"
)

// verbs is the command line: one field a verb, in the order of the help.
type verbs struct {
	Run        Run        `cmd:"" help:"Generate text with a model."`
	Gate       Gate       `cmd:"" help:"Is TEST faithful to REF? The decision is the first line."`
	Diff       Diff       `cmd:"" help:"Where do two runs of the same ids part?"`
	Trace      Trace      `cmd:"" help:"Write every intermediate tensor of a run to a trace file."`
	Inspect    Inspect    `cmd:"" help:"What is in a checkpoint or a trace file, and what is wrong with it."`
	Tokenize   Tokenize   `cmd:"" help:"Text to token ids, and back."`
	Quantize   Quantize   `cmd:"" help:"Write a checkpoint whose weights a scheme has quantized."`
	Bench      Bench      `cmd:"" help:"How fast is it, as a share of what this machine can do?"`
	Ops        Ops        `cmd:"" help:"Hold every Metal kernel to float64, on a GPU or on the CPU that runs the same source."`
	Patch      Patch      `cmd:"" help:"Write a copy of a bundle with some of its constants changed (experimental)."`
	Doctor     Doctor     `cmd:"" help:"Can this machine run Core AI, and this bundle in it?"`
	Taps       Taps       `cmd:"" help:"The tensors a trace can hold: names, shapes, meanings."`
	Contracts  Contracts  `cmd:"" help:"What is rounded where: every contract side by side."`
	Schemes    Schemes    `cmd:"" help:"How weights are kept: every scheme, and how to write a recipe."`
	Completion Completion `cmd:"" help:"Print a completion script for bash, zsh or fish."`

	Threads     int              `short:"t" env:"SIBYL_THREADS" placeholder:"N" help:"Threads; 0 means all cores." group:"everywhere"`
	MemoryLimit string           `env:"SIBYL_MEMORY_LIMIT" placeholder:"SIZE" help:"Refuse jobs that need more memory than this, such as 8GB (default: what the machine or its cgroup has left)." group:"everywhere"`
	Quiet       bool             `short:"q" env:"SIBYL_QUIET" help:"No progress and no notes on standard error; errors are still printed." group:"everywhere"`
	NoVerify    bool             `env:"SIBYL_NO_VERIFY" help:"Use a bundle whose main.hash is missing or does not match, with a warning." group:"everywhere"`
	Version     kong.VersionFlag `help:"Print the version." group:"everywhere"`
}

// App is what a verb sees of the process.
type App struct {
	Stdin   io.Reader
	Stdout  *pipe  // data
	Stderr  *notes // everything else
	Threads int    // at least 1
	Quiet   bool

	noVerify    bool // bundles that do not match their hash are used
	warned      map[string]bool
	stream      bool // CPU engines read their weights layer by layer
	memoryLimit string
	given       []string // the flags on the command line, without those of the environment
	parser      *kong.Kong
}

// Main runs sibyl and returns its exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	catchBrokenPipe()
	ctx, stop := catchSignals()
	defer stop()

	app := &App{Stdin: stdin, Stdout: &pipe{w: stdout}, Stderr: newNotes(stderr)}
	err := app.run(ctx, args)
	app.Stderr.clear()
	if flushErr := app.Stdout.Flush(); err == nil {
		err = flushErr
	}
	return app.report(ctx, err)
}

// run parses args and runs the verb.
func (a *App) run(ctx context.Context, args []string) (err error) {
	defer mmap.Catch(&err)() // of what is read here; workers and engines catch their own
	var v verbs
	helped := false
	badCPU := kernels.Use(env("SIBYL_CPU"))
	a.parser, err = kong.New(&v,
		kong.Name("sibyl"), kong.Description(about), kong.Vars{"version": versionText(), "templates": strings.Join(tokenizer.TemplateNames(), ", ")},
		kong.Writers(a.Stdout, a.Stderr), kong.Exit(func(int) { helped = true }),
		kong.ValueFormatter(helpText),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100, NoAppDescFormat: true}),
		kong.Groups{"everywhere": "Flags of every verb:"},
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(a),
	)
	if err != nil {
		return err // a fault of the tags above; every test would meet it
	}
	for _, name := range []string{"SIBYL_THREADS", "SIBYL_MEMORY_LIMIT", "SIBYL_QUIET", "SIBYL_NO_VERIFY", "SIBYL_JSON"} {
		if env(name) == "" {
			_ = os.Unsetenv(name) // an empty variable is none; it cannot fail for these names
		}
	}
	if len(args) > 0 && args[0] == completeVerb {
		return a.complete(args[1:])
	}
	if badCPU != nil {
		return badCPU
	}
	if len(args) > 0 && args[0] == "help" {
		args = append(args[1:len(args):len(args)], "--help")
	}
	parsed, err := a.parser.Parse(args)
	switch {
	case helped:
		return nil // help or version was printed
	case len(args) == 0:
		return &usageError{errors.New("a verb is missing")}
	case err != nil:
		return a.usage(args, err)
	}
	if err := a.globals(&v); err != nil {
		return err
	}
	if err := refuseEmpty(parsed); err != nil {
		return err
	}
	for _, p := range parsed.Path {
		if p.Flag != nil {
			a.given = append(a.given, p.Flag.Name)
		}
	}
	return parsed.Run()
}

// globals checks the flags every verb shares.
func (a *App) globals(v *verbs) error {
	a.Quiet, a.memoryLimit, a.noVerify = v.Quiet, v.MemoryLimit, v.NoVerify
	a.Stderr.quiet = v.Quiet
	// More threads than cores only cost time, but must be possible: results may not depend on their number.
	limit := max(64, runtime.NumCPU())
	switch a.Threads = v.Threads; {
	case v.Threads < 0:
		return &inputerr.Error{File: "--threads", Found: fmt.Sprint(v.Threads), Want: "0 for all cores, or a count"}
	case v.Threads == 0:
		a.Threads = runtime.GOMAXPROCS(0)
	case v.Threads > limit:
		a.Note("--threads: %d asked for, using %d (this machine has %d cores)", v.Threads, limit, runtime.NumCPU())
		a.Threads = limit
	}
	if a.memoryLimit == "" {
		return nil
	}
	_, err := parseSize("--memory-limit", a.memoryLimit)
	return err
}

// Note tells the user something on standard error, unless --quiet.
func (a *App) Note(format string, args ...any) {
	if !a.Quiet {
		a.Stderr.line(fmt.Sprintf(format, args...))
	}
}

// env reads an environment variable that is not a flag's.
func env(name string) string { return os.Getenv(name) }

// tempDir is where temporary traces go.
func tempDir() string { return os.TempDir() }

// terminalWidth is the width of w in columns, 0 if w is not a terminal.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || env("TERM") == "dumb" {
		return 0
	}
	if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
		return width
	}
	return 80
}

// unicodeOutput says whether w may be sent more than ASCII: a terminal in a UTF-8 locale.
func unicodeOutput(w io.Writer) bool {
	locale := env("LC_ALL") + env("LC_CTYPE") + env("LANG")
	utf8 := strings.Contains(strings.ToLower(strings.ReplaceAll(locale, "-", "")), "utf8")
	return terminalWidth(w) > 0 && (utf8 || runtime.GOOS == "windows") && env("NO_COLOR") == ""
}

// catchSignals gives a context that the first SIGINT or SIGTERM ends, with a signalError as its cause; the second
// ends the process at once, as if nobody had asked for it. stop gives up waiting for either.
func catchSignals() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	arrived := make(chan os.Signal, 2)
	signal.Notify(arrived, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case s := <-arrived:
			signal.Stop(arrived)
			cancel(signalError{s})
		case <-ctx.Done():
			return
		}
		select {
		case s := <-arrived: // it came before Stop
			os.Exit(signalExit(s))
		default:
		}
	}()
	return ctx, func() { signal.Stop(arrived); cancel(nil) }
}

// catchBrokenPipe turns SIGPIPE into EPIPE of the write, which Main maps to exit 0. The channel is never read:
// being asked for is what keeps the signal from killing the process.
func catchBrokenPipe() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }
