//! The real process, seen from outside: hand-made bytes, our own client and the command line.

mod process;
