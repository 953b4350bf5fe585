// Package errors stands in for that of Go 1.20 where the distribution's Go is older, for libcni.
package errors

import (
	"errors"
	"strings"
)

type joined []error

// Join makes one error of those that are not nil, as errors.Join does.
func Join(errs ...error) error {
	var found joined
	for _, err := range errs {
		if err != nil {
			found = append(found, err)
		}
	}
	if len(found) == 0 {
		return nil
	}
	return found
}

func (e joined) Error() string {
	texts := make([]string, 0, len(e))
	for _, err := range e {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "\n")
}

// As is what errors.As asks: it finds the first that fits.
func (e joined) As(target interface{}) bool {
	for _, err := range e {
		if errors.As(err, target) {
			return true
		}
	}
	return false
}
