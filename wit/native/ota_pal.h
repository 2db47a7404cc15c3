/* ota_pal.h: the C ABI of a native PAL plugin, version 1.
 *
 * A native plugin is a shared library that gives the duties of wit/pal/image.wit by way of one table of functions.
 * wit/pal/image.wit is the authority on what each duty means and in which order they come; wit/pal/types.wit has the
 * codes. Here stands only how they look in C. It compiles as C99, C11 and C++. ota_pal.rs is the same for Rust, and a
 * test compares the two, size by size and offset by offset.
 *
 *     cc -std=c99 -shared -fPIC -I wit/native my_pal.c -o my_pal.so
 *
 * The library exports one symbol, ota_pal_plugin_entry, which gives a table that lives as long as the library.
 *
 * Rules
 * - One instance (`self`) serves one target. Its functions are called one at a time, perhaps from different threads.
 * - Nothing waits: a call does bounded work and returns. A duty that goes on answers OTA_PAL_WORKING and says what wakes
 *   it; the host then calls `step`. A call that does not return within OTA_PAL_CALL_MAX_MS has its process killed.
 * - Every duty is idempotent. After a failure, a crash or a power cut it is begun again, in a new process if need be:
 *   `open`, `reopen`, then the duty.
 * - All functions but describe, open, create, reopen, activate, commit, reject, state and abort may be NULL; what the
 *   host does then stands beside them.
 * - A function returns 0, or anything else after filling in `failure`. Everything that `duty` and `failure` point to is
 *   zeroed before the call (`struct_size` is set), so that a plain `return 0` says: finished, nothing to tell.
 * - Whatever is passed in belongs to the caller and is gone when the function returns; the host copies what it is given
 *   before it calls again. Nothing is freed by the other side. Texts are UTF-8 and end with NUL.
 * - What is lent may be called only inside a duty and on its thread. `open` uses `log` alone; `describe` nothing.
 * - By default the library runs in a process of its own, which was confined before it was loaded: no network, no other
 *   program, no file but those that the operator granted, bounded memory. System calls outside that fail with EPERM, and
 *   its own static constructors run confined as well.
 * - The end of the process (exit, _exit) in `activate`, `reset` or `reject` is the restart of the target: the duty has
 *   succeeded, and after `activate` the host does not call `reset` any more. Anywhere else it is a crash, as is a signal.
 *
 * Growth: `abi_version` says what cannot be read across versions. Within a version the structs below only ever get new
 * members at the end, and `struct_size` says how many of them the other side knows: a host reads no further than the
 * plugin's struct_size, and a plugin must not touch what lies beyond the host's.
 */
#ifndef OTA_PAL_H
#define OTA_PAL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define OTA_PAL_ABI_VERSION 1u

/* Limits. */
#define OTA_PAL_DETAIL_BYTES 256u        /* a failure's text, with its NUL */
#define OTA_PAL_PRODUCT_BYTES 128u       /* a product's name, with its NUL */
#define OTA_PAL_REGION_NAME_BYTES 64u    /* a region's name, with its NUL */
#define OTA_PAL_TRANSFER_MAX_BYTES 131072u /* one lent read or write, one block */
#define OTA_PAL_SAVED_MAX_BYTES 65536u   /* what `suspend` gives */
#define OTA_PAL_EXTENTS_MAX 64u          /* extents of one file */
#define OTA_PAL_KINDS_MAX 16u            /* kinds, and schemas, of a description */
#define OTA_PAL_CALL_MAX_MS 5000u        /* one call, without the time that lent storage takes */

/* Why something did not work. */
typedef struct ota_pal_failure {
    uint32_t main;                       /* 0xd0 to 0xee, table in wit/pal/types.wit */
    uint32_t sub;                        /* the plugin's own number, 24 bits */
    char detail[OTA_PAL_DETAIL_BYTES];   /* for people: one line, lower case */
} ota_pal_failure;

/* Compared field by field. */
typedef struct ota_pal_version {
    uint8_t major;
    uint8_t minor;
    uint16_t revision;
    uint32_t build;                      /* 0 where a format has none */
} ota_pal_version;

/* One key and its value from the target's configuration. */
typedef struct ota_pal_setting {
    const char *key;
    const char *value;
} ota_pal_setting;

/* What `suspend` of another instance gave. */
typedef struct ota_pal_saved {
    uint32_t schema;
    uint32_t length;
    const uint8_t *bytes;
} ota_pal_saved;

/* Bits of ota_pal_description.capabilities: either direct or staged. */
#define OTA_PAL_CAN_DIRECT 0x01u
#define OTA_PAL_CAN_STAGED 0x02u
#define OTA_PAL_CAN_AHEAD 0x04u
#define OTA_PAL_CAN_REVERT 0x08u
#define OTA_PAL_CAN_SELF_TEST 0x10u
#define OTA_PAL_CAN_RUNNING_VERSION 0x20u

/* Bits of ota_pal_description.needs and ota_pal_lent.granted. */
#define OTA_PAL_BLOCK_DEVICE 0x01u
#define OTA_PAL_STAGED_IMAGE 0x02u
#define OTA_PAL_SERIAL_LINE 0x04u
#define OTA_PAL_HARDWARE_RESET 0x08u
#define OTA_PAL_CLOCK 0x10u
#define OTA_PAL_LOG 0x20u

/* Who the plugin is; lives as long as the library. */
typedef struct ota_pal_description {
    uint32_t struct_size;
    uint32_t capabilities;               /* OTA_PAL_CAN_... */
    uint32_t largest_write;              /* direct: most bytes of a write_block, 256 to 131072; staged: 0 */
    uint32_t needs;                      /* what it must be lent; it is refused where that is not granted */
    const char *name;                    /* [a-z0-9-], at most 64 bytes */
    const char *version;                 /* semver text, at most 64 bytes */
    const char *const *kinds;            /* kinds of target, NULL behind the last; may be NULL */
    const uint32_t *schemas;             /* encodings that `open` reads, the one that `suspend` writes first */
    uint32_t schema_count;
    uint32_t reserved;
} ota_pal_description;

/* The transfer. */
typedef struct ota_pal_transfer {
    uint32_t struct_size;
    uint32_t file_id;
    uint64_t size;                       /* bytes in all */
    uint32_t block_size;
    uint32_t file_type;
    uint32_t attributes;
    uint32_t signature_length;           /* 0 = none */
    const uint8_t *signature;
    const char *device;
    const char *job_id;
    const char *path;                    /* `filepath`: a hint, opens nothing */
    const char *certificate;             /* `certfile`; a check with it may only refuse */
    const char *signature_kind;          /* such as sig-sha256-ecdsa */
} ota_pal_transfer;

/* ota_pal_duty.status */
#define OTA_PAL_FINISHED 0u
#define OTA_PAL_WORKING 1u
/* ota_pal_duty.wake, bits; none = as soon as the host can. Input without a time is refused. */
#define OTA_PAL_WAKE_INPUT 0x01u
#define OTA_PAL_WAKE_DATA 0x02u
#define OTA_PAL_WAKE_AFTER 0x04u
/* ota_pal_duty.answer */
#define OTA_PAL_NOTHING 0u
#define OTA_PAL_INFO 1u                  /* `examine`: has_version, version, product */
#define OTA_PAL_STATE 2u                 /* `state`: state, has_version, version, runs_new */
#define OTA_PAL_HOST_RESETS 3u           /* `reset`, `reject` */
/* ota_pal_duty.state */
#define OTA_PAL_STATE_UNKNOWN 0u
#define OTA_PAL_STATE_PENDING_COMMIT 1u
#define OTA_PAL_STATE_VALID 2u
#define OTA_PAL_STATE_INVALID 3u
#define OTA_PAL_STATE_ARMED 4u
#define OTA_PAL_STATE_FOREIGN 5u
/* ota_pal_duty.runs_new */
#define OTA_PAL_CANNOT_TELL 0u
#define OTA_PAL_YES 1u
#define OTA_PAL_NO 2u

/* Where a duty stands. */
typedef struct ota_pal_duty {
    uint32_t struct_size;
    uint32_t status;
    uint64_t done;                       /* working: so far, in bytes where bytes move */
    uint64_t total;                      /* working: in all, 0 = not known */
    uint32_t wake;
    uint32_t wake_after_ms;              /* at most 60000 */
    uint32_t answer;                     /* finished */
    uint32_t state;
    uint32_t runs_new;
    uint32_t has_version;                /* 1 = `version` was read */
    ota_pal_version version;
    char product[OTA_PAL_PRODUCT_BYTES]; /* empty = the format has none */
} ota_pal_duty;

/* A run of bytes in lent storage. */
typedef struct ota_pal_extent {
    uint32_t region;
    uint32_t reserved;
    uint64_t offset;
    uint64_t length;
} ota_pal_extent;

/* One region of lent storage; its index is its number. */
typedef struct ota_pal_region {
    uint64_t size;
    uint32_t kind;                       /* 0 slot, 1 record */
    uint32_t erase_size;
    uint32_t write_size;
    uint32_t read_only;
    char name[OTA_PAL_REGION_NAME_BYTES];
} ota_pal_region;

/* Parameters of a serial line. */
typedef struct ota_pal_line {
    uint32_t baud;                       /* 0 = as configured */
    uint32_t parity;                     /* 0 none, 1 odd, 2 even */
    uint32_t stop_bits;
    uint32_t flow_control;               /* 0 none, 1 RTS/CTS, 2 XON/XOFF */
} ota_pal_line;

/* Severity of a log line. */
#define OTA_PAL_TRACE 0u
#define OTA_PAL_DEBUG 1u
#define OTA_PAL_INFORM 2u
#define OTA_PAL_WARN 3u
#define OTA_PAL_ERROR 4u

/* What the host lends. Call each with `host` first. `failure` may be NULL. What was not granted fails with 0xd1. */
typedef struct ota_pal_lent {
    uint32_t struct_size;
    uint32_t granted;
    void *host;
    /* block-device */
    uint32_t (*region_count)(void *host);
    int32_t (*region)(void *host, uint32_t index, ota_pal_region *region, ota_pal_failure *failure);
    int32_t (*read_at)(void *host, uint32_t region, uint64_t offset, uint8_t *data, uint32_t length,
                       ota_pal_failure *failure);
    int32_t (*write_at)(void *host, uint32_t region, uint64_t offset, const uint8_t *data, uint32_t length,
                        ota_pal_failure *failure);
    int32_t (*erase)(void *host, uint32_t region, uint64_t offset, uint64_t length, ota_pal_failure *failure);
    int32_t (*sync)(void *host, uint32_t region, ota_pal_failure *failure);
    /* staged-image */
    uint64_t (*staged_held)(void *host);
    uint32_t (*staged_verified)(void *host);
    int32_t (*staged_read)(void *host, uint64_t offset, uint8_t *data, uint32_t length, ota_pal_failure *failure);
    /* serial-line: nothing waits */
    int32_t (*line_open)(void *host, const ota_pal_line *line, ota_pal_failure *failure);
    int32_t (*line_write)(void *host, const uint8_t *data, uint32_t length, uint32_t *taken, ota_pal_failure *failure);
    int32_t (*line_read)(void *host, uint8_t *data, uint32_t max, uint32_t *length, ota_pal_failure *failure);
    int32_t (*line_unsent)(void *host, uint32_t *bytes, ota_pal_failure *failure);
    int32_t (*line_drain)(void *host, ota_pal_failure *failure);
    /* 0 off, 1 on, -1 leave as it is */
    int32_t (*line_set)(void *host, int32_t dtr, int32_t rts, int32_t break_condition, ota_pal_failure *failure);
    void (*line_close)(void *host);
    /* hardware-reset */
    int32_t (*pulse)(void *host, uint32_t hold_ms, ota_pal_failure *failure);
    /* clock */
    uint64_t (*now_ms)(void *host);
    /* log: one line; longer than 1 KiB is cut, the rate is limited */
    void (*log)(void *host, uint32_t level, const char *text);
} ota_pal_lent;

/* The table. */
typedef struct ota_pal_plugin {
    uint32_t struct_size;                /* sizeof(ota_pal_plugin) */
    uint32_t abi_version;                /* OTA_PAL_ABI_VERSION */
    const ota_pal_description *(*describe)(void);
    /* `lent` lives until `close`; `saved` may be NULL. Sets *self, which is handed to all others. */
    int32_t (*open)(const ota_pal_lent *lent, const ota_pal_setting *settings, uint32_t count,
                    const ota_pal_saved *saved, void **self, ota_pal_failure *failure);
    /* Let everything go; the transfer stays. NULL = nothing to let go. Not called when the process is killed. */
    void (*close)(void *self);
    int32_t (*create)(void *self, const ota_pal_transfer *transfer, ota_pal_duty *duty, ota_pal_failure *failure);
    int32_t (*reopen)(void *self, const ota_pal_transfer *transfer, ota_pal_duty *duty, ota_pal_failure *failure);
    /* Direct alone; NULL = 0xda. */
    int32_t (*write_block)(void *self, uint64_t offset, const uint8_t *data, uint32_t length, ota_pal_duty *duty,
                           ota_pal_failure *failure);
    /* Direct alone; *count is the room on entry, and how many there are on return; NULL = 0xda. */
    int32_t (*extents)(void *self, ota_pal_extent *extents, uint32_t *count, ota_pal_failure *failure);
    int32_t (*examine)(void *self, ota_pal_duty *duty, ota_pal_failure *failure);     /* NULL = 0xda */
    int32_t (*install)(void *self, ota_pal_duty *duty, ota_pal_failure *failure);     /* NULL = finished */
    int32_t (*activate)(void *self, const uint8_t *sha256, ota_pal_duty *duty, ota_pal_failure *failure);
    int32_t (*reset)(void *self, ota_pal_duty *duty, ota_pal_failure *failure);       /* NULL = OTA_PAL_HOST_RESETS */
    int32_t (*self_test)(void *self, ota_pal_duty *duty, ota_pal_failure *failure);   /* NULL = 0xda */
    int32_t (*commit)(void *self, ota_pal_duty *duty, ota_pal_failure *failure);
    int32_t (*reject)(void *self, ota_pal_duty *duty, ota_pal_failure *failure);
    int32_t (*state)(void *self, ota_pal_duty *duty, ota_pal_failure *failure);
    int32_t (*abort)(void *self, ota_pal_duty *duty, ota_pal_failure *failure);
    /* NULL = 0xd0: for plugins whose duties are over in one call. */
    int32_t (*step)(void *self, uint32_t budget_bytes, ota_pal_duty *duty, ota_pal_failure *failure);
    /* *length is the room on entry, and the bytes on return; NULL = schema 1, empty. */
    int32_t (*suspend)(void *self, uint32_t *schema, uint8_t *bytes, uint32_t *length, ota_pal_failure *failure);
} ota_pal_plugin;

/* What the library exports. NULL = it refuses to be loaded. */
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
const ota_pal_plugin *ota_pal_plugin_entry(void);

/* Sizes on a machine with pointers of 64 bits, the only kind that is supported. */
#if defined(__cplusplus) && __cplusplus >= 201103L
#define OTA_PAL_SIZE(type, size) static_assert(sizeof(type) == (size), #type)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define OTA_PAL_SIZE(type, size) _Static_assert(sizeof(type) == (size), #type)
#else
#define OTA_PAL_SIZE(type, size) typedef char type##_has_its_size[sizeof(type) == (size) ? 1 : -1]
#endif
OTA_PAL_SIZE(ota_pal_failure, 264);
OTA_PAL_SIZE(ota_pal_version, 8);
OTA_PAL_SIZE(ota_pal_setting, 16);
OTA_PAL_SIZE(ota_pal_saved, 16);
OTA_PAL_SIZE(ota_pal_description, 56);
OTA_PAL_SIZE(ota_pal_transfer, 80);
OTA_PAL_SIZE(ota_pal_duty, 184);
OTA_PAL_SIZE(ota_pal_extent, 24);
OTA_PAL_SIZE(ota_pal_region, 88);
OTA_PAL_SIZE(ota_pal_line, 16);
OTA_PAL_SIZE(ota_pal_lent, 168);
OTA_PAL_SIZE(ota_pal_plugin, 152);
#undef OTA_PAL_SIZE

#ifdef __cplusplus
}
#endif

#endif
