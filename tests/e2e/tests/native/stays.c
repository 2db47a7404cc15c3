/* Wraps the calls of a PAL that restart its target: they return, and only the host restarts it. */
#include "ota.h"

OtaPalStatus_t __wrap_otaPal_ActivateNewImage(OtaFileContext_t *const context);
OtaPalStatus_t __wrap_otaPal_ResetDevice(OtaFileContext_t *const context);

OtaPalStatus_t __wrap_otaPal_ActivateNewImage(OtaFileContext_t *const context)
{
    FILE *boot = fopen("boot.txt", "w");
    (void)context;
    if (boot == NULL || fputs("ab\n", boot) < 0 || fclose(boot) != 0)
        return OTA_PAL_COMBINE_ERR(OtaPalActivateFailed, 0);
    return OTA_PAL_COMBINE_ERR(OtaPalSuccess, 0);
}

OtaPalStatus_t __wrap_otaPal_ResetDevice(OtaFileContext_t *const context)
{
    (void)context;
    return OTA_PAL_COMBINE_ERR(OtaPalSuccess, 0);
}
