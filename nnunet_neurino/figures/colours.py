"""The colours of all figures: Okabe and Ito's set, told apart with every common kind of colour vision."""

from __future__ import annotations

BLACK = "#000000"
ORANGE = "#E69F00"
SKY_BLUE = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"

# One meaning each, in every figure. On a grey image the two differ in hue and in lightness.
TRUTH = SKY_BLUE
PREDICTION = ORANGE

# For several things of the same kind (neurons, runs), on white and on a dark image.
ON_WHITE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, BLACK)
ON_BLACK = (SKY_BLUE, ORANGE, GREEN, YELLOW, PURPLE, VERMILLION)
