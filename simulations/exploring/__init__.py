"""Sessions drawn at random, held to every invariant, shrunk to what matters; and the mutants that must be found so."""
