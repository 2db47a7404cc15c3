/* ota.h: what PAL source written for the FreeRTOS OTA agent (version 3) includes, as far as a PAL uses it.
 *
 * Names, values and layouts are interface facts; all words and code here are this project's. shim.c calls the eight
 * functions below; README.md says when. Whatever only the agent itself needs is not here. */
#ifndef OTA_H
#define OTA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Limits of the agent that PALs use. */
#define kOTA_MaxSignatureSize 384          /* RSA with 3072 bits */
#define OTA_FILE_SIG_KEY_STR_MAX_LENGTH 32 /* of the signature's key in the job, with its NUL */
#ifndef otaconfigLOG2_FILE_BLOCK_SIZE
#define otaconfigLOG2_FILE_BLOCK_SIZE 12UL
#endif
#define OTA_FILE_BLOCK_SIZE ((uint32_t)1U << otaconfigLOG2_FILE_BLOCK_SIZE)
/* What a file handle points to; on a board it is often uint8_t. */
#ifndef otaconfigOTA_FILE_TYPE
#define otaconfigOTA_FILE_TYPE FILE
#endif

/* A status: a main code in the upper 8 bits, the port's own number, often errno, in the lower 24. */
typedef uint32_t OtaPalStatus_t;
typedef uint32_t OtaPalMainStatus_t;
typedef uint32_t OtaPalSubStatus_t;

#define OtaPalSuccess 0x0U
#define OtaPalUninitialized 0xe0U
#define OtaPalOutOfMemory 0xe1U
#define OtaPalNullFileContext 0xe2U
#define OtaPalSignatureCheckFailed 0xe3U
#define OtaPalRxFileCreateFailed 0xe4U
#define OtaPalRxFileTooLarge 0xe5U
#define OtaPalBootInfoCreateFailed 0xe6U
#define OtaPalBadSignerCert 0xe7U
#define OtaPalBadImageState 0xe8U
#define OtaPalAbortFailed 0xe9U
#define OtaPalRejectFailed 0xeaU
#define OtaPalCommitFailed 0xebU
#define OtaPalActivateFailed 0xecU
#define OtaPalFileAbort 0xedU
#define OtaPalFileClose 0xeeU

#define OTA_PAL_SUB_BITS 24U
#define OTA_PAL_ERR_MASK 0xffffffUL
#define OTA_PAL_MAIN_ERR(err) ((OtaPalMainStatus_t)((uint32_t)(err) >> OTA_PAL_SUB_BITS))
#define OTA_PAL_SUB_ERR(err) ((uint32_t)(err)&0xffffffU)
#define OTA_PAL_COMBINE_ERR(main, sub) (((uint32_t)(main) << OTA_PAL_SUB_BITS) | OTA_PAL_SUB_ERR(sub))

/* What the agent wants an image to be. */
typedef enum OtaImageState {
    OtaImageStateUnknown = 0,
    OtaImageStateTesting = 1,
    OtaImageStateAccepted = 2,
    OtaImageStateRejected = 3,
    OtaImageStateAborted = 4,
    OtaLastImageState = OtaImageStateAborted
} OtaImageState_t;

/* What a PAL says that the running image is. */
typedef enum OtaPalImageState {
    OtaPalImageStateUnknown = 0,
    OtaPalImageStatePendingCommit = 1,
    OtaPalImageStateValid = 2,
    OtaPalImageStateInvalid = 3
} OtaPalImageState_t;

/* A signature; the second name is that of older versions. */
typedef struct Sig {
    uint16_t size;
    uint8_t data[kOTA_MaxSignatureSize];
} Sig_t;
typedef Sig_t Sig256_t;

/* The file under way. The shim fills in what a PAL uses; members that only the agent needs are NULL or 0. */
typedef struct OtaFileContext {
    uint8_t *pFilePath;
    uint16_t filePathMaxSize;
    otaconfigOTA_FILE_TYPE *pFile;
    uint32_t fileSize;
    uint32_t blocksRemaining;
    uint32_t fileAttributes;
    uint32_t serverFileID;
    uint8_t *pJobName;
    uint16_t jobNameMaxSize;
    uint8_t *pStreamName;
    uint16_t streamNameMaxSize;
    uint8_t *pRxBlockBitmap;
    uint16_t blockBitmapMaxSize;
    uint8_t *pCertFilepath;
    uint16_t certFilePathMaxSize;
    uint8_t *pUpdateUrlPath;
    uint16_t updateUrlMaxSize;
    uint8_t *pAuthScheme;
    uint16_t authSchemeMaxSize;
    uint32_t updaterVersion;
    bool isInSelfTest;
    uint8_t *pProtocols;
    uint16_t protocolMaxSize;
    uint8_t *pDecodeMem;
    uint32_t decodeMemMaxSize;
    uint32_t fileType;
    Sig_t *pSignature;
} OtaFileContext_t;

/* A version as the agent compares it. */
typedef struct {
    union {
        uint32_t unsignedVersion32;
        int32_t signedVersion32;
        struct {
            uint16_t build;
            uint8_t minor;
            uint8_t major;
        } x;
    } u;
} AppVersion32_t;

/* Given by the PAL: the key of the signature that it checks. */
extern const char OTA_JsonFileSignatureKey[OTA_FILE_SIG_KEY_STR_MAX_LENGTH];
/* Given by the application, or by the shim, where it is 0. */
extern const AppVersion32_t appFirmwareVersion;

/* The PAL. */
OtaPalStatus_t otaPal_Abort(OtaFileContext_t *const pFileContext);
OtaPalStatus_t otaPal_CreateFileForRx(OtaFileContext_t *const pFileContext);
OtaPalStatus_t otaPal_CloseFile(OtaFileContext_t *const pFileContext);
int16_t otaPal_WriteBlock(OtaFileContext_t *const pFileContext, uint32_t offset, uint8_t *const pData,
                          uint32_t blockSize);
OtaPalStatus_t otaPal_ActivateNewImage(OtaFileContext_t *const pFileContext);
OtaPalStatus_t otaPal_ResetDevice(OtaFileContext_t *const pFileContext);
OtaPalStatus_t otaPal_SetPlatformImageState(OtaFileContext_t *const pFileContext, OtaImageState_t eState);
OtaPalImageState_t otaPal_GetPlatformImageState(OtaFileContext_t *const pFileContext);

/* Logging, to be used as LogInfo( ( "%d blocks", n ) ): into the host's log. */
void otad_log_error(const char *format, ...);
void otad_log_warn(const char *format, ...);
void otad_log_info(const char *format, ...);
void otad_log_debug(const char *format, ...);
#ifndef LogError
#define LogError(message) otad_log_error message
#endif
#ifndef LogWarn
#define LogWarn(message) otad_log_warn message
#endif
#ifndef LogInfo
#define LogInfo(message) otad_log_info message
#endif
#ifndef LogDebug
#define LogDebug(message) otad_log_debug message
#endif

#ifdef __cplusplus
}
#endif

#endif
