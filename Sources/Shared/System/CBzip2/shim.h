// bzlib.h names FILE and does not bring it.
#include <stdio.h>
#include <bzlib.h>
