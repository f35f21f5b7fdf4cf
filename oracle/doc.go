// Package oracle puts engines side by side over the same ids and says whether, where and why they differ.
//
// Diff compares every tensor two runs recorded: how far apart, against what rounding explains, and the first place
// beyond it. Gate asks whether one engine says what another says: it qualifies the positions of which the reference
// is sure, compares the tokens chosen there (teacher forced, from a handed-over state, in a rollout), asks controls
// for the cause of every flip, and gives each a verdict. A Transcript keeps the evidence, and can be judged again.
//
// Engines are reached through package engine only; nothing here computes a model.
package oracle
