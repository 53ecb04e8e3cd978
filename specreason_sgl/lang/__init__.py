"""What programs are written with: a solve, its trace, drafting ahead, backing off, and loading a program."""
