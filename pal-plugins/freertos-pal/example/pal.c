/* pal.c: an example of a PAL as it is written for the FreeRTOS OTA agent: two files, a and b, and one that says which of
 * them is to run and whether it was accepted. It works in its current directory and knows nothing of otad.
 *
 * boot.txt has one line: the letter of the accepted file, and behind it the letter of one that is in test, if there is
 * one. It is replaced by a rename, so that power may fail at any time. The program that starts the images (not here)
 * starts the one in test once, and then the accepted one again. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "ota.h"

const char OTA_JsonFileSignatureKey[OTA_FILE_SIG_KEY_STR_MAX_LENGTH] = "sig-sha256-ecdsa";

struct boot {
    char accepted;
    char in_test; /* 0 = none */
};

static int boot_read(struct boot *boot)
{
    char line[4] = "a";
    FILE *file = fopen("boot.txt", "r");
    if (file != NULL) {
        char *read = fgets(line, sizeof line, file);
        (void)fclose(file);
        if (read == NULL)
            return -1;
    } else if (errno != ENOENT) {
        return -1;
    }
    line[strcspn(line, "\n")] = '\0';
    boot->accepted = line[0];
    boot->in_test = line[0] != '\0' ? line[1] : '\0';
    if (boot->accepted != 'a' && boot->accepted != 'b')
        return -1;
    return boot->in_test == '\0' || boot->in_test == 'a' || boot->in_test == 'b' ? 0 : -1;
}

/* What was renamed, or is new, is there after a power cut only once its directory was written as well. */
static int directory_sync(void)
{
    int directory = open(".", O_RDONLY | O_DIRECTORY);
    int end;
    if (directory < 0)
        return -1;
    end = fsync(directory);
    return close(directory) != 0 ? -1 : end;
}

static OtaPalStatus_t boot_write(const struct boot *boot, OtaPalMainStatus_t otherwise)
{
    FILE *file = fopen("boot.new", "w");
    int end = -1;
    if (file != NULL) {
        end = boot->in_test != '\0' ? fprintf(file, "%c%c\n", boot->accepted, boot->in_test)
                                    : fprintf(file, "%c\n", boot->accepted);
        if (end >= 0 && (fflush(file) != 0 || fsync(fileno(file)) != 0))
            end = -1;
        if (fclose(file) != 0)
            end = -1;
    }
    if (end >= 0 && rename("boot.new", "boot.txt") == 0 && directory_sync() == 0)
        return OTA_PAL_COMBINE_ERR(OtaPalSuccess, 0);
    LogError(("boot.txt cannot be written: %s", strerror(errno)));
    return OTA_PAL_COMBINE_ERR(otherwise, errno);
}

static const char *other(const struct boot *boot) { return boot->accepted == 'a' ? "b" : "a"; }

OtaPalStatus_t otaPal_CreateFileForRx(OtaFileContext_t *const context)
{
    struct boot boot;
    if (context == NULL)
        return OTA_PAL_COMBINE_ERR(OtaPalNullFileContext, 0);
    if (boot_read(&boot) != 0)
        return OTA_PAL_COMBINE_ERR(OtaPalBootInfoCreateFailed, errno);
    if (boot.in_test != '\0')
        return OTA_PAL_COMBINE_ERR(OtaPalRxFileCreateFailed, EBUSY);
    context->pFile = fopen(other(&boot), "w+b");
    if (context->pFile == NULL)
        return OTA_PAL_COMBINE_ERR(OtaPalRxFileCreateFailed, errno);
    LogInfo(("file %s takes %u bytes", other(&boot), (unsigned)context->fileSize));
    return OTA_PAL_COMBINE_ERR(OtaPalSuccess, 0);
}

int16_t otaPal_WriteBlock(OtaFileContext_t *const context, uint32_t offset, uint8_t *const data, uint32_t size)
{
    if (context == NULL || context->pFile == NULL || size > INT16_MAX)
        return -1;
    if (fseek(context->pFile, (long)offset, SEEK_SET) != 0 || fwrite(data, 1, size, context->pFile) != size)
        return -1;
    return (int16_t)size;
}

OtaPalStatus_t otaPal_CloseFile(OtaFileContext_t *const context)
{
    FILE *file;
    int end;
    if (context == NULL || context->pFile == NULL)
        return OTA_PAL_COMBINE_ERR(OtaPalNullFileContext, 0);
    /* A PAL that holds a certificate checks the signature here. otad has done that, with its own trust store. */
    file = context->pFile;
    context->pFile = NULL;
    end = fflush(file) == 0 && fsync(fileno(file)) == 0 ? 0 : -1;
    if (fclose(file) != 0 || end != 0)
        return OTA_PAL_COMBINE_ERR(OtaPalFileClose, errno);
    return OTA_PAL_COMBINE_ERR(OtaPalSuccess, 0);
}

OtaPalStatus_t otaPal_Abort(OtaFileContext_t *const context)
{
    FILE *file = context != NULL ? context->pFile : NULL;
    if (context == NULL)
        return OTA_PAL_COMBINE_ERR(OtaPalFileAbort, 0);
    context->pFile = NULL;
    if (file != NULL && fclose(file) != 0)
        return OTA_PAL_COMBINE_ERR(OtaPalFileAbort, errno);
    return OTA_PAL_COMBINE_ERR(OtaPalSuccess, 0);
}

OtaPalStatus_t otaPal_ActivateNewImage(OtaFileContext_t *const context)
{
    struct boot boot;
    OtaPalStatus_t status;
    (void)context;
    if (boot_read(&boot) != 0)
        return OTA_PAL_COMBINE_ERR(OtaPalActivateFailed, errno);
    boot.in_test = other(&boot)[0];
    status = boot_write(&boot, OtaPalActivateFailed);
    if (OTA_PAL_MAIN_ERR(status) == OtaPalSuccess)
        _exit(0); /* On a board: the reset. It does not return. */
    return status;
}

OtaPalStatus_t otaPal_ResetDevice(OtaFileContext_t *const context)
{
    (void)context;
    _exit(0);
}

OtaPalStatus_t otaPal_SetPlatformImageState(OtaFileContext_t *const context, OtaImageState_t state)
{
    struct boot boot;
    (void)context;
    if (boot_read(&boot) != 0)
        return OTA_PAL_COMBINE_ERR(OtaPalBadImageState, errno);
    switch (state) {
    case OtaImageStateTesting:
        return OTA_PAL_COMBINE_ERR(boot.in_test != '\0' ? OtaPalSuccess : OtaPalBadImageState, 0);
    case OtaImageStateAccepted:
        if (boot.in_test == '\0')
            return OTA_PAL_COMBINE_ERR(OtaPalSuccess, 0);
        boot.accepted = boot.in_test;
        boot.in_test = '\0';
        return boot_write(&boot, OtaPalCommitFailed);
    case OtaImageStateRejected:
    case OtaImageStateAborted:
        if (boot.in_test == '\0')
            return OTA_PAL_COMBINE_ERR(OtaPalSuccess, 0);
        boot.in_test = '\0';
        return boot_write(&boot, OtaPalRejectFailed);
    case OtaImageStateUnknown:
    default:
        return OTA_PAL_COMBINE_ERR(OtaPalBadImageState, 0);
    }
}

OtaPalImageState_t otaPal_GetPlatformImageState(OtaFileContext_t *const context)
{
    struct boot boot;
    (void)context;
    if (boot_read(&boot) != 0)
        return OtaPalImageStateInvalid;
    return boot.in_test != '\0' ? OtaPalImageStatePendingCommit : OtaPalImageStateValid;
}
