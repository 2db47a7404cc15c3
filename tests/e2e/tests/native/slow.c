/* Wraps calls of a PAL: each takes its time, as that of a board behind a slow line does. Any four of them take longer than
 * the host waits for one call of its own (OTA_PAL_CALL_MAX_MS). */
#include <time.h>

#include "ota.h"

static void take_time(void)
{
    static const struct timespec time = {1, 400000000};
    nanosleep(&time, NULL);
}

int16_t __real_otaPal_WriteBlock(OtaFileContext_t *const context, uint32_t offset, uint8_t *const data, uint32_t size);
int16_t __wrap_otaPal_WriteBlock(OtaFileContext_t *const context, uint32_t offset, uint8_t *const data, uint32_t size);

int16_t __wrap_otaPal_WriteBlock(OtaFileContext_t *const context, uint32_t offset, uint8_t *const data, uint32_t size)
{
    take_time();
    return __real_otaPal_WriteBlock(context, offset, data, size);
}

OtaPalStatus_t __real_otaPal_CloseFile(OtaFileContext_t *const context);
OtaPalStatus_t __wrap_otaPal_CloseFile(OtaFileContext_t *const context);

OtaPalStatus_t __wrap_otaPal_CloseFile(OtaFileContext_t *const context)
{
    take_time();
    take_time();
    return __real_otaPal_CloseFile(context);
}

OtaPalStatus_t __real_otaPal_ActivateNewImage(OtaFileContext_t *const context);
OtaPalStatus_t __wrap_otaPal_ActivateNewImage(OtaFileContext_t *const context);

OtaPalStatus_t __wrap_otaPal_ActivateNewImage(OtaFileContext_t *const context)
{
    take_time();
    take_time();
    return __real_otaPal_ActivateNewImage(context);
}
