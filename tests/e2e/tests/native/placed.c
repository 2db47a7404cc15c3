/* Wraps a PAL's otaPal_CreateFileForRx: the image goes where the file context says. */
#include <errno.h>

#include "ota.h"

OtaPalStatus_t __wrap_otaPal_CreateFileForRx(OtaFileContext_t *const context);

OtaPalStatus_t __wrap_otaPal_CreateFileForRx(OtaFileContext_t *const context)
{
    context->pFile = fopen((const char *)context->pFilePath, "w+b");
    if (context->pFile == NULL)
        return OTA_PAL_COMBINE_ERR(OtaPalRxFileCreateFailed, errno);
    return OTA_PAL_COMBINE_ERR(OtaPalSuccess, 0);
}
