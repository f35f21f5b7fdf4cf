package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"sibyl/bundle"
	"sibyl/internal/demo"
	"sibyl/internal/inputerr"
	"sibyl/internal/userfile"
	"sibyl/tokenizer"
)

// Tokenize turns text into ids, and back.
type Tokenize struct {
	Args        []string `arg:"" optional:"" empty:"ok" name:"[MODEL] TEXT" help:"The text; - reads it from standard input. One argument is the TEXT, unless it is a path or an id in the hub cache."`
	Tokenizer   string   `placeholder:"FILE" help:"A tokenizer.json or .tiktoken file instead of a MODEL."`
	Decode      bool     `help:"Ids to text: the TEXT is 1,2,3 or @FILE."`
	SkipSpecial bool     `help:"Leave special tokens out of decoded text."`
	Lines       bool     `name:"jsonl" help:"Standard input line by line: a JSON string in, a JSON list of ids out; with --decode the other way round."`
	Chat        string   `placeholder:"FILE" help:"Render the messages of a JSON file with the chat template."`
	Template    string   `placeholder:"NAME" help:"Chat template where the model's own is not recognised: ${templates} (with --chat)."`
	NoThink     bool     `help:"Ask the model not to think first (with --chat)."`
	Prompt      bool     `name:"generation-prompt" default:"true" negatable:"" help:"End with the beginning of the assistant's turn (with --chat; on by default)."`
	JSON
}

// Help is the part of the help below the flags.
func (*Tokenize) Help() string {
	return `One line a token: id, bytes of the input as the vocabulary spells them, and the range of code points.

Examples:

  sibyl tokenize "The rays of light"
  echo "The rays" | sibyl tokenize --json -
  sibyl tokenize --decode 1,2,3
  echo '"The rays"' | sibyl tokenize --jsonl`
}

// encoding is what --json prints. Offsets are code points of the text, [begin, end).
type encoding struct {
	Text    string   `json:"text,omitempty"` // the rendered chat
	IDs     []int32  `json:"ids"`
	Pieces  []string `json:"pieces"`
	Offsets [][2]int `json:"offsets"`
}

// Run is the verb.
func (v *Tokenize) Run(ctx context.Context, a *App) error {
	modelName, input, err := v.arguments()
	if err != nil {
		return err
	}
	tok, chat, err := v.load(modelName)
	if err != nil {
		return err
	}
	if v.Lines && slices.Contains(a.given, "json") {
		return &inputerr.Error{File: "tokenize", Found: "--jsonl and --json", Want: "one of them", Do: "--jsonl prints a JSON list a line already"}
	}
	if v.Lines {
		return a.eachLine(ctx, func(line []byte) (any, error) { return v.line(tok, line) })
	}
	if v.Chat != "" {
		return v.render(ctx, a, tok, chat)
	}
	if v.Decode {
		return v.decode(ctx, a, tok, input)
	}
	if input == "-" {
		if input, err = a.stdinText(ctx); err != nil {
			return err
		}
	}
	enc, err := tok.Encode(input, tokenizer.EncodeOptions{})
	if err != nil {
		return err
	}
	return v.print(a, "", enc)
}

// arguments tells MODEL and TEXT apart.
func (v *Tokenize) arguments() (modelName, input string, err error) {
	needsText := !v.Lines && v.Chat == ""
	most := 2
	if v.Tokenizer != "" {
		most--
	}
	if !needsText {
		most--
	}
	switch {
	case v.Lines && v.Chat != "" || v.Chat != "" && v.Decode:
		err = &inputerr.Error{File: "tokenize", Found: "--chat with --jsonl or --decode", Want: "one of them"}
	case v.Chat == "" && (v.Template != "" || v.NoThink):
		err = &inputerr.Error{File: "tokenize", Found: "--template or --no-think without --chat", Want: "--chat FILE with them"}
	case len(v.Args) > most:
		err = &usageError{fmt.Errorf("tokenize: %d arguments, want at most %d here; a TEXT of several words needs quotes", len(v.Args), most)}
	case len(v.Args) > 0 && v.Args[0] == "" && (!needsText || len(v.Args) == 2):
		err = emptyArgument("MODEL")
	case !needsText && len(v.Args) == 1:
		modelName = v.Args[0]
	case !needsText:
	case len(v.Args) == 2:
		modelName, input = v.Args[0], v.Args[1]
	case len(v.Args) == 0 || v.Tokenizer == "" && v.Args[0] != "-" && !strings.HasPrefix(v.Args[0], "@") && namesModel(v.Args[0]):
		err = &inputerr.Error{File: "tokenize", Found: "no TEXT", Want: `a text, or "-" for standard input`}
	default:
		input = v.Args[0]
	}
	return modelName, input, err
}

// load reads the tokenizer of a file, a checkpoint or LanguageBundle (which need no weights for this), or the demo model.
func (v *Tokenize) load(modelName string) (*tokenizer.Tokenizer, *tokenizer.ChatInfo, error) {
	if v.Tokenizer != "" {
		tok, err := tokenizer.Load(v.Tokenizer)
		return tok, &tokenizer.ChatInfo{EOSID: -1}, err
	}
	ref, err := bundle.Resolve(modelName)
	if err != nil {
		return nil, nil, err
	}
	if ref.Kind == bundle.Demo {
		return tokenizer.LoadFS(demo.FS, ".")
	}
	fsys, dir := userfile.FS(os.DirFS(ref.Path)), "."
	if ref.Kind == bundle.LanguageBundle || ref.Kind == bundle.AIModel {
		var closer io.Closer
		if fsys, dir, closer, err = bundle.OpenTokenizer(ref.Path); err != nil {
			return nil, nil, err
		}
		defer func() { _ = closer.Close() }() // only read
	}
	tok, chat, err := tokenizer.LoadFS(fsys, dir)
	if err != nil {
		err = fmt.Errorf("%s: %w", ref.Path, err)
	}
	return tok, chat, err
}
