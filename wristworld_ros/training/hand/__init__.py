"""Training of the hand network: guesses of the wrist's pose that are wrong at random, and what is wrong with them."""
