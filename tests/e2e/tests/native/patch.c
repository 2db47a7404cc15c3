/* A staged plugin on the bare C ABI whose files are patches: the host collects and verifies one, `install` applies it to
 * the image that runs, and `activate` puts the result in its place.
 *
 * A patch is signed as any other file. It names the image that it is for and the one that it makes, so that both are known
 * before anything is replaced:
 *
 *     "PATCH-1\n", SHA-256 of the base, SHA-256 of the result, then until the end of the file
 *     'C', offset, length            copy so many bytes of the base
 *     'I', length, bytes             insert these
 *
 * Numbers have 32 bits, little-endian. In the directory that the plugin was granted:
 *
 *     image   what runs       next   made of the patch, not yet in its place       old   what ran before; gone once committed
 *
 * This target is files alone and has no boot loader, so nothing goes back by itself: `reject` does. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ota_pal.h"

#define DIGEST_BYTES 32u
#define HEAD_BYTES (8u + 2 * DIGEST_BYTES)
/* Of the base, of the patch and of the result. */
#define IMAGE_MAX_BYTES (4u * 1024 * 1024)

/* SHA-256, FIPS 180-4. */

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t turned(uint32_t word, unsigned by) { return word >> by | word << (32 - by); }

static void chunk(uint32_t h[8], const uint8_t *bytes)
{
    uint32_t w[64], v[8];
    unsigned n;
    for (n = 0; n < 16; n++)
        w[n] = (uint32_t)bytes[4 * n] << 24 | (uint32_t)bytes[4 * n + 1] << 16 | (uint32_t)bytes[4 * n + 2] << 8 |
               bytes[4 * n + 3];
    for (; n < 64; n++)
        w[n] = w[n - 16] + (turned(w[n - 15], 7) ^ turned(w[n - 15], 18) ^ w[n - 15] >> 3) + w[n - 7] +
               (turned(w[n - 2], 17) ^ turned(w[n - 2], 19) ^ w[n - 2] >> 10);
    memcpy(v, h, sizeof v);
    for (n = 0; n < 64; n++) {
        uint32_t one = v[7] + (turned(v[4], 6) ^ turned(v[4], 11) ^ turned(v[4], 25)) + ((v[4] & v[5]) ^ (~v[4] & v[6])) +
                       K[n] + w[n];
        uint32_t two = (turned(v[0], 2) ^ turned(v[0], 13) ^ turned(v[0], 22)) +
                       ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += one;
        v[0] = one + two;
    }
    for (n = 0; n < 8; n++)
        h[n] += v[n];
}

static void digest(const uint8_t *bytes, uint32_t length, uint8_t out[DIGEST_BYTES])
{
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint8_t tail[128] = {0};
    uint32_t rest = length % 64, end = rest < 56 ? 64 : 128, n;
    uint64_t bits = (uint64_t)length * 8;
    for (n = 0; n + 64 <= length; n += 64)
        chunk(h, bytes + n);
    memcpy(tail, bytes + n, rest);
    tail[rest] = 0x80;
    for (n = 0; n < 8; n++)
        tail[end - 1 - n] = (uint8_t)(bits >> (8 * n));
    for (n = 0; n < end; n += 64)
        chunk(h, tail + n);
    for (n = 0; n < DIGEST_BYTES; n++)
        out[n] = (uint8_t)(h[n / 4] >> (24 - 8 * (n % 4)));
}

/* The target. */

static const ota_pal_lent *lent;
static uint64_t patch_length; /* of the transfer that is open; 0 = none */
static uint8_t patch[IMAGE_MAX_BYTES], base[IMAGE_MAX_BYTES], made[IMAGE_MAX_BYTES];

static int32_t fail(ota_pal_failure *failure, uint32_t code, uint32_t sub, const char *what)
{
    failure->main = code;
    failure->sub = sub;
    (void)snprintf(failure->detail, sizeof failure->detail, "%s", what);
    return -1;
}

static int32_t storage(ota_pal_failure *failure, const char *what) { return fail(failure, 0xd6, (uint32_t)errno, what); }

static int is_there(const char *name) { return access(name, F_OK) == 0; }

/* A name in the directory is durable once the directory is. */
static int32_t settle(ota_pal_failure *failure)
{
    int fd = open(".", O_RDONLY | O_DIRECTORY);
    int end = fd < 0 ? -1 : fsync(fd);
    if (fd >= 0)
        (void)close(fd);
    return end == 0 ? 0 : storage(failure, "sync the directory");
}

/* `from` takes the place of `to`; that it has done so before is as good. */
static int32_t move(const char *from, const char *to, ota_pal_failure *failure)
{
    if (rename(from, to) != 0 && errno != ENOENT)
        return storage(failure, from);
    return settle(failure);
}

/* The length of the file, or -1. */
static int32_t load(const char *name, uint8_t *place)
{
    int fd = open(name, O_RDONLY);
    uint32_t length = 0;
    ssize_t got = fd < 0 ? -1 : 1;
    while (got > 0 && length < IMAGE_MAX_BYTES) {
        got = read(fd, place + length, IMAGE_MAX_BYTES - length);
        length += got > 0 ? (uint32_t)got : 0;
    }
    if (fd >= 0)
        (void)close(fd);
    return got == 0 ? (int32_t)length : -1;
}

static int32_t store(const char *name, const uint8_t *bytes, uint32_t length)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int ok = fd >= 0;
    while (ok && length > 0) {
        ssize_t took = write(fd, bytes, length);
        ok = took > 0;
        bytes += ok ? took : 0;
        length -= ok ? (uint32_t)took : 0;
    }
    ok = ok && fsync(fd) == 0;
    if (fd >= 0)
        (void)close(fd);
    return ok ? 0 : -1;
}

static uint32_t number(const uint8_t *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* Apply the patch to the base. The length of the result, or -1 where it leads out of base, patch or room. */
static int32_t apply(uint32_t patch_bytes, uint32_t base_bytes)
{
    uint32_t at = HEAD_BYTES, length = 0;
    while (at < patch_bytes) {
        uint32_t left = patch_bytes - at, count;
        if (patch[at] == 'C' && left >= 9) {
            uint32_t offset = number(patch + at + 1);
            count = number(patch + at + 5);
            if (offset > base_bytes || count > base_bytes - offset || count > IMAGE_MAX_BYTES - length)
                return -1;
            memcpy(made + length, base + offset, count);
            at += 9;
        } else if (patch[at] == 'I' && left >= 5) {
            count = number(patch + at + 1);
            if (count > left - 5 || count > IMAGE_MAX_BYTES - length)
                return -1;
            memcpy(made + length, patch + at + 5, count);
            at += 5 + count;
        } else {
            return -1;
        }
        length += count;
    }
    return (int32_t)length;
}

static int32_t open_it(const ota_pal_lent *host, const ota_pal_setting *settings, uint32_t count,
                       const ota_pal_saved *saved, void **self, ota_pal_failure *failure)
{
    (void)settings;
    (void)saved;
    if (count > 0)
        return fail(failure, 0xd0, 0, "this plugin has no settings");
    lent = host;
    *self = patch;
    /* Cut between the two steps of `activate`: nothing runs, which is worse than the old image. */
    return is_there("image") ? 0 : move("old", "image", failure);
}

static int32_t begin(void *self, const ota_pal_transfer *transfer, ota_pal_duty *duty, ota_pal_failure *failure)
{
    (void)self;
    (void)duty;
    if (transfer->size <= HEAD_BYTES || transfer->size > IMAGE_MAX_BYTES)
        return fail(failure, 0xe5, 0, "a patch has 73 bytes to 4 MiB");
    patch_length = transfer->size;
    return 0;
}

static int32_t install(void *self, ota_pal_duty *duty, ota_pal_failure *failure)
{
    uint32_t at, length = (uint32_t)patch_length;
    int32_t old_length, new_length;
    uint8_t sum[DIGEST_BYTES];
    (void)self;
    (void)duty;
    for (at = 0; at < length;) {
        uint32_t part = length - at < OTA_PAL_TRANSFER_MAX_BYTES ? length - at : OTA_PAL_TRANSFER_MAX_BYTES;
        if (lent->staged_read(lent->host, at, patch + at, part, failure) != 0)
            return -1;
        at += part;
    }
    if (length <= HEAD_BYTES || memcmp(patch, "PATCH-1\n", 8) != 0)
        return fail(failure, 0xd3, 1, "the file is no patch");
    old_length = load("image", base);
    if (old_length < 0)
        return storage(failure, "read the image that runs");
    digest(base, (uint32_t)old_length, sum);
    if (memcmp(sum, patch + 8, DIGEST_BYTES) != 0)
        return fail(failure, 0xd3, 2, "the patch is for another image than the one that runs");
    new_length = apply(length, (uint32_t)old_length);
    if (new_length < 0)
        return fail(failure, 0xd3, 3, "the patch leads out of its base or of itself");
    digest(made, (uint32_t)new_length, sum);
    if (memcmp(sum, patch + 8 + DIGEST_BYTES, DIGEST_BYTES) != 0)
        return fail(failure, 0xd3, 4, "what the patch makes is not the image that it names");
    return store("next", made, (uint32_t)new_length) == 0 ? settle(failure) : storage(failure, "write the new image");
}

static int32_t activate(void *self, const uint8_t *sha256, ota_pal_duty *duty, ota_pal_failure *failure)
{
    (void)self;
    (void)sha256;
    (void)duty;
    /* Without `next` it has been done. */
    if (!is_there("next"))
        return is_there("old") ? 0 : fail(failure, 0xec, 0, "nothing is installed");
    if (is_there("image") && move("image", "old", failure) != 0)
        return -1;
    return move("next", "image", failure);
}

static int32_t commit(void *self, ota_pal_duty *duty, ota_pal_failure *failure)
{
    (void)self;
    (void)duty;
    if (unlink("old") != 0 && errno != ENOENT)
        return storage(failure, "remove the old image");
    return settle(failure);
}

/* `reject` and `abort`: the old image runs, and nothing is left of the new one. */
static int32_t go_back(void *self, ota_pal_duty *duty, ota_pal_failure *failure)
{
    (void)self;
    (void)duty;
    if (unlink("next") != 0 && errno != ENOENT)
        return storage(failure, "remove what was installed");
    return move("old", "image", failure);
}

static int32_t state(void *self, ota_pal_duty *duty, ota_pal_failure *failure)
{
    (void)self;
    (void)failure;
    duty->answer = OTA_PAL_STATE;
    duty->state = is_there("old") && !is_there("next") ? OTA_PAL_STATE_PENDING_COMMIT : OTA_PAL_STATE_VALID;
    return 0;
}

/* Nothing has to be started anew for a file. */
static int32_t reset(void *self, ota_pal_duty *duty, ota_pal_failure *failure)
{
    (void)self;
    (void)duty;
    (void)failure;
    return 0;
}

static const char *const kinds[] = {"patched-file", NULL};
static const uint32_t schemas[] = {1};

static const ota_pal_description *describe(void)
{
    static const ota_pal_description description = {
        sizeof description, OTA_PAL_CAN_STAGED, 0, OTA_PAL_STAGED_IMAGE, "patch", "1.0.0", kinds, schemas, 1, 0,
    };
    return &description;
}

const ota_pal_plugin *ota_pal_plugin_entry(void)
{
    static const ota_pal_plugin plugin = {
        sizeof plugin, OTA_PAL_ABI_VERSION, describe, open_it, NULL,   begin,   begin, NULL,    NULL, NULL,
        install,       activate,            reset,    NULL,    commit, go_back, state, go_back, NULL, NULL,
    };
    return &plugin;
}
