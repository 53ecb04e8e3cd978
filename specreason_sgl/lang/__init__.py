"""What programs are written with: a solve, its chains, drafting ahead, backing off, and loading a program."""
