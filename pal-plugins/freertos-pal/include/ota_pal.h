/* ota_pal.h: PALs include it beside or in place of ota.h, which has everything. */
#include "ota.h"
