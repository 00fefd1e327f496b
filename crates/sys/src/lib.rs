//! Every syscall and every unsafe, behind owned descriptors.
