/* ota_config_defaults.h: PALs include it beside or in place of ota.h, which has everything. */
#include "ota.h"
