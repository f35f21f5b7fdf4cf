package safetensors

import (
	"errors"

	"sibyl/internal/inputerr"
)

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func asInput(err error, in **inputerr.Error) bool { return errors.As(err, in) }
