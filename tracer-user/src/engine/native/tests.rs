//! The native engine on programs compiled here and on libraries of this machine.
