/* shim.c: a FreeRTOS PAL as a native plugin of otad (wit/native/ota_pal.h).
 *
 *     cc -shared -fPIC -I pal-plugins/freertos-pal/include pal.c pal-plugins/freertos-pal/shim.c -o plugin.so
 *
 * The target is staged: the host collects the file, verifies it and then lets the shim write it, in order, in blocks of
 * at most 16 KiB, for the PAL's answer is an int16_t. Until `activate` nothing is closed, and so nothing is marked: a PAL
 * may mark the image in otaPal_CloseFile. README.md has the whole table, and the settings. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "ota.h"

#include "../../wit/native/ota_pal.h"

#define BLOCK_BYTES 16384u
#define TEXT_BYTES 512u

/* Who the plugin is: -DOTAD_PAL_NAME='"board-pal"' -DOTAD_PAL_VERSION='"1.2.0"' */
#ifndef OTAD_PAL_NAME
#define OTAD_PAL_NAME "freertos-pal"
#endif
#ifndef OTAD_PAL_VERSION
#define OTAD_PAL_VERSION "1.0.0"
#endif

/* Whether an image that was not committed goes away by itself at the next restart of the target: that is known to
 * whoever builds the plugin. */
#ifndef OTAD_PAL_REVERTS
#define OTAD_PAL_REVERTS 0
#endif

struct shim {
    OtaFileContext_t file;
    Sig_t signature;
    char path[TEXT_BYTES];
    char certificate[TEXT_BYTES];
    char job[TEXT_BYTES];
    char own_path[TEXT_BYTES];        /* setting `filepath` */
    char own_certificate[TEXT_BYTES]; /* setting `certificate` */
    int activate_restarts;            /* setting `activate_restarts` */
    int is_open;                      /* otaPal_CreateFileForRx has succeeded, and nothing has closed it since */
    int is_activating;                /* the duty under way, which copies first, is `activate` */
    int is_closed;                    /* in `activate`: otaPal_CloseFile has succeeded, otaPal_ActivateNewImage is next */
    uint32_t written;                 /* bytes so far */
    uint8_t block[BLOCK_BYTES];
};

static struct shim shim;
static const ota_pal_lent *lent;

#if defined(__GNUC__)
__attribute__((weak))
#endif
const AppVersion32_t appFirmwareVersion = {{0}};

static void say(uint32_t level, const char *format, va_list arguments)
{
    char line[1024];
    (void)vsnprintf(line, sizeof line, format, arguments);
    if (lent != NULL)
        lent->log(lent->host, level, line);
}

#define LOG_FUNCTION(name, level)           \
    void name(const char *format, ...)      \
    {                                       \
        va_list arguments;                  \
        va_start(arguments, format);        \
        say(level, format, arguments);      \
        va_end(arguments);                  \
    }
LOG_FUNCTION(otad_log_error, OTA_PAL_ERROR)
LOG_FUNCTION(otad_log_warn, OTA_PAL_WARN)
LOG_FUNCTION(otad_log_info, OTA_PAL_INFORM)
LOG_FUNCTION(otad_log_debug, OTA_PAL_DEBUG)

static int32_t fail(ota_pal_failure *failure, uint32_t code, uint32_t sub, const char *what)
{
    failure->main = code;
    failure->sub = sub;
    (void)snprintf(failure->detail, sizeof failure->detail, "%s", what);
    return -1;
}

/* 0, or what the PAL says. `otherwise` stands for a main code that the table does not have. */
static int32_t judge(OtaPalStatus_t status, uint32_t otherwise, const char *what, ota_pal_failure *failure)
{
    uint32_t code = OTA_PAL_MAIN_ERR(status);
    char detail[128];
    if (code == OtaPalSuccess)
        return 0;
    (void)snprintf(detail, sizeof detail, "%s answered 0x%08x", what, (unsigned)status);
    if (code == OtaPalUninitialized || code == OtaPalNullFileContext || code < 0xe0u || code > 0xeeu)
        code = otherwise;
    return fail(failure, code, OTA_PAL_SUB_ERR(status), detail);
}

static void copy(char *place, const char *text) { (void)snprintf(place, TEXT_BYTES, "%s", text); }

static int32_t open_it(const ota_pal_lent *host, const ota_pal_setting *settings, uint32_t count,
                       const ota_pal_saved *saved, void **self, ota_pal_failure *failure)
{
    uint32_t n;
    (void)saved;
    /* A PAL keeps its state in static variables, as this file does. */
    if (lent != NULL)
        return fail(failure, 0xd0, 0, "in one process a PAL serves one target: isolation = \"process\" serves more");
    memset(&shim, 0, sizeof shim);
    shim.activate_restarts = 1;
    for (n = 0; n < count; n++) {
        const char *key = settings[n].key, *value = settings[n].value;
        if (strlen(value) >= TEXT_BYTES)
            return fail(failure, 0xd0, 0, "a setting has more than 511 bytes");
        if (strcmp(key, "filepath") == 0)
            copy(shim.own_path, value);
        else if (strcmp(key, "certificate") == 0)
            copy(shim.own_certificate, value);
        else if (strcmp(key, "activate_restarts") == 0)
            shim.activate_restarts = strcmp(value, "false") != 0;
        else
            return fail(failure, 0xd0, 0, "settings are filepath, certificate and activate_restarts");
    }
    lent = host;
    *self = &shim;
    return 0;
}

static void close_it(void *self)
{
    (void)self;
    if (shim.is_open)
        (void)otaPal_Abort(&shim.file);
    lent = NULL;
}

/* `create` and `reopen`: know the transfer, touch nothing. */
static int32_t begin(void *self, const ota_pal_transfer *transfer, ota_pal_duty *duty, ota_pal_failure *failure)
{
    OtaFileContext_t *file = &shim.file;
    const char *path = shim.own_path[0] != '\0' ? shim.own_path : transfer->path;
    const char *certificate = shim.own_certificate[0] != '\0' ? shim.own_certificate : transfer->certificate;
    (void)self;
    (void)duty;
    if (transfer->size > UINT32_MAX)
        return fail(failure, OtaPalRxFileTooLarge, 0, "a file context has 32 bits for the size");
    if (transfer->signature_length > kOTA_MaxSignatureSize)
        return fail(failure, OtaPalSignatureCheckFailed, 0, "a file context has room for a signature of 384 bytes");
    if (strlen(path) >= TEXT_BYTES || strlen(certificate) >= TEXT_BYTES || strlen(transfer->job_id) >= TEXT_BYTES)
        return fail(failure, OtaPalRxFileCreateFailed, 0, "a text of the job has more than 511 bytes");
    if (shim.is_open)
        (void)otaPal_Abort(file);
    shim.is_open = 0;
    shim.is_closed = 0;
    shim.written = 0;
    copy(shim.path, path);
    copy(shim.certificate, certificate);
    copy(shim.job, transfer->job_id);
    memset(file, 0, sizeof *file);
    shim.signature.size = (uint16_t)transfer->signature_length;
    if (transfer->signature_length > 0)
        memcpy(shim.signature.data, transfer->signature, transfer->signature_length);
    file->pFilePath = (uint8_t *)shim.path;
    file->filePathMaxSize = TEXT_BYTES;
    file->pCertFilepath = (uint8_t *)shim.certificate;
    file->certFilePathMaxSize = TEXT_BYTES;
    file->pJobName = (uint8_t *)shim.job;
    file->jobNameMaxSize = TEXT_BYTES;
    file->pSignature = &shim.signature;
    file->fileSize = (uint32_t)transfer->size;
    file->fileAttributes = transfer->attributes;
    file->fileType = transfer->file_type;
    file->serverFileID = transfer->file_id;
    return 0;
}

static int32_t make(ota_pal_failure *failure)
{
    int32_t end;
    if (shim.is_open)
        (void)otaPal_Abort(&shim.file);
    shim.is_open = 0;
    shim.is_closed = 0;
    shim.written = 0;
    shim.file.blocksRemaining = (shim.file.fileSize + BLOCK_BYTES - 1) / BLOCK_BYTES;
    end = judge(otaPal_CreateFileForRx(&shim.file), OtaPalRxFileCreateFailed, "otaPal_CreateFileForRx", failure);
    shim.is_open = end == 0;
    return end;
}

static int32_t working(ota_pal_duty *duty)
{
    duty->status = OTA_PAL_WORKING;
    duty->done = shim.written;
    duty->total = shim.file.fileSize;
    return 0;
}

/* All is written, and to be activated. */
static int32_t close_file(ota_pal_duty *duty, ota_pal_failure *failure)
{
    shim.is_open = 0;
    if (judge(otaPal_CloseFile(&shim.file), OtaPalFileClose, "otaPal_CloseFile", failure) != 0)
        return -1;
    shim.is_closed = 1;
    return working(duty);
}

/* One call of the PAL, which may take as long as the host waits for one of its own. */
static int32_t step(void *self, uint32_t budget, ota_pal_duty *duty, ota_pal_failure *failure)
{
    uint32_t left = shim.file.fileSize - shim.written;
    uint32_t length = left < BLOCK_BYTES ? left : BLOCK_BYTES;
    int16_t taken;
    (void)self;
    if (shim.is_closed) {
        shim.is_closed = 0;
        return judge(otaPal_ActivateNewImage(&shim.file), OtaPalActivateFailed, "otaPal_ActivateNewImage", failure);
    }
    if (!shim.is_open)
        return fail(failure, 0xd0, 0, "no duty is under way");
    if (left == 0)
        return shim.is_activating ? close_file(duty, failure) : 0;
    if (budget < length)
        return working(duty);
    if (lent->staged_read(lent->host, shim.written, shim.block, length, failure) != 0)
        return -1;
    taken = otaPal_WriteBlock(&shim.file, shim.written, shim.block, length);
    if (taken < 0 || (uint32_t)taken != length)
        return fail(failure, OtaPalFileAbort, (uint32_t)taken & 0xffffffu, "otaPal_WriteBlock did not take all");
    shim.written += length;
    if (shim.file.blocksRemaining > 0)
        shim.file.blocksRemaining--;
    return working(duty);
}

static int32_t install(void *self, ota_pal_duty *duty, ota_pal_failure *failure)
{
    (void)self;
    shim.is_activating = 0;
    if (shim.file.pFilePath == NULL)
        return fail(failure, 0xd0, 0, "no transfer is open");
    if (make(failure) != 0)
        return -1;
    return working(duty);
}

static int32_t activate(void *self, const uint8_t *sha256, ota_pal_duty *duty, ota_pal_failure *failure)
{
    (void)self;
    (void)sha256;
    shim.is_activating = 1;
    if (shim.file.pFilePath == NULL)
        return fail(failure, 0xd0, 0, "no transfer is open");
    if (shim.is_open && shim.written == shim.file.fileSize)
        return close_file(duty, failure);
    /* Another process wrote it, and its handle went with it: again, from what the host has verified. */
    if (make(failure) != 0)
        return -1;
    return working(duty);
}

static int32_t reset(void *self, ota_pal_duty *duty, ota_pal_failure *failure)
{
    (void)self;
    (void)failure;
    /* Never otaPal_ResetDevice: a second restart without a commit would go back. */
    if (!shim.activate_restarts)
        duty->answer = OTA_PAL_HOST_RESETS;
    return 0;
}

static int32_t self_test(void *self, ota_pal_duty *duty, ota_pal_failure *failure)
{
    (void)self;
    (void)duty;
    shim.file.isInSelfTest = true;
    return judge(otaPal_SetPlatformImageState(&shim.file, OtaImageStateTesting), OtaPalBadImageState,
                 "otaPal_SetPlatformImageState(Testing)", failure);
}

static int32_t commit(void *self, ota_pal_duty *duty, ota_pal_failure *failure)
{
    int32_t end;
    (void)self;
    (void)duty;
    end = judge(otaPal_SetPlatformImageState(&shim.file, OtaImageStateAccepted), OtaPalCommitFailed,
                "otaPal_SetPlatformImageState(Accepted)", failure);
    if (end == 0 && otaPal_GetPlatformImageState(&shim.file) != OtaPalImageStateValid)
        end = fail(failure, OtaPalCommitFailed, 0, "accepted, and the image is not valid");
    return end;
}

static int32_t reject(void *self, ota_pal_duty *duty, ota_pal_failure *failure)
{
    int runs = otaPal_GetPlatformImageState(&shim.file) == OtaPalImageStatePendingCommit;
    int32_t end;
    (void)self;
    end = judge(otaPal_SetPlatformImageState(&shim.file, OtaImageStateRejected), OtaPalRejectFailed,
                "otaPal_SetPlatformImageState(Rejected)", failure);
    if (end != 0 || !runs)
        return end;
    if (!shim.activate_restarts) {
        /* And asks again: then the new image does not run any more. */
        duty->answer = OTA_PAL_HOST_RESETS;
        return 0;
    }
    /* It need not return: the end of the process is the restart. */
    return judge(otaPal_ResetDevice(&shim.file), OtaPalRejectFailed, "otaPal_ResetDevice", failure);
}

static int32_t state(void *self, ota_pal_duty *duty, ota_pal_failure *failure)
{
    (void)self;
    (void)failure;
    duty->answer = OTA_PAL_STATE;
    switch (otaPal_GetPlatformImageState(&shim.file)) {
    case OtaPalImageStatePendingCommit:
        duty->state = OTA_PAL_STATE_PENDING_COMMIT;
        break;
    case OtaPalImageStateValid:
        duty->state = OTA_PAL_STATE_VALID;
        break;
    case OtaPalImageStateInvalid:
        duty->state = OTA_PAL_STATE_INVALID;
        break;
    default:
        duty->state = OTA_PAL_STATE_UNKNOWN;
        break;
    }
    return 0;
}

static int32_t abort_it(void *self, ota_pal_duty *duty, ota_pal_failure *failure)
{
    (void)self;
    (void)duty;
    shim.is_open = 0;
    shim.is_closed = 0;
    shim.written = 0;
    return judge(otaPal_Abort(&shim.file), OtaPalAbortFailed, "otaPal_Abort", failure);
}

static const char *const kinds[] = {"freertos-pal", NULL};
static const uint32_t schemas[] = {1};

static const ota_pal_description *describe(void)
{
    static const ota_pal_description description = {
        sizeof description,
        OTA_PAL_CAN_STAGED | OTA_PAL_CAN_SELF_TEST | (OTAD_PAL_REVERTS ? OTA_PAL_CAN_REVERT : 0),
        0,
        OTA_PAL_STAGED_IMAGE | OTA_PAL_LOG,
        OTAD_PAL_NAME,
        OTAD_PAL_VERSION,
        kinds,
        schemas,
        1,
        0,
    };
    return &description;
}

const ota_pal_plugin *ota_pal_plugin_entry(void)
{
    static const ota_pal_plugin plugin = {
        sizeof plugin, OTA_PAL_ABI_VERSION, describe, open_it, close_it, begin, begin, NULL,   NULL,  NULL,
        install,       activate,            reset,    self_test, commit, reject, state, abort_it, step, NULL,
    };
    return &plugin;
}
