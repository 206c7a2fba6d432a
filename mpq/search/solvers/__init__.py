"""Takes costs, errors and limits; gives the choice with the least total error and a proven bound. Must not know plans or measurements."""
