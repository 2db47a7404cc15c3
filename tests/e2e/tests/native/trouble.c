/* Wraps a PAL's otaPal_WriteBlock: the third block of the first process falls into trouble, once. And its process does
 * not take leave: whoever waits for its destructors waits for ever. */
#include <fcntl.h>
#include <unistd.h>

#include "ota.h"

int16_t __real_otaPal_WriteBlock(OtaFileContext_t *const context, uint32_t offset, uint8_t *const data, uint32_t size);
int16_t __wrap_otaPal_WriteBlock(OtaFileContext_t *const context, uint32_t offset, uint8_t *const data, uint32_t size);

int16_t __wrap_otaPal_WriteBlock(OtaFileContext_t *const context, uint32_t offset, uint8_t *const data, uint32_t size)
{
    static int blocks;
    int fd;
    if (++blocks == 3 && (fd = open("trouble", O_CREAT | O_EXCL | O_WRONLY, 0600)) >= 0) {
        close(fd);
        TROUBLE;
    }
    return __real_otaPal_WriteBlock(context, offset, data, size);
}

__attribute__((destructor)) static void farewell(void)
{
    for (;;)
        sleep(1);
}
