//go:build cgo && linux && gnustep

package fakemetal

// #cgo CFLAGS: -x objective-c
import "C"
