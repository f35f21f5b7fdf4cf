package main

// The engines, imported for their registration alone: what cmd imports is what subjects can name.
import (
	_ "sibyl/coreai"
	_ "sibyl/graph"
	_ "sibyl/metal"
	_ "sibyl/model"
	_ "sibyl/oracle/replay"
	_ "sibyl/plain64"
)
