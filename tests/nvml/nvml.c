/* A stand-in for NVIDIA's libnvidia-ml.so.1: the calls that brainjar makes through pynvml, answered from a text file.
 *
 * The file that NVML_STAND_IN names, else `nvml.txt` beside the library, is read anew at every call. One word and what belongs to it per line:
 *
 *   devices N                  how many there are, of which a process learns as it begins; without this line none
 *   name TEXT
 *   memory USED TOTAL          bytes
 *   temperature N              degrees Celsius
 *   utilization N              percent
 *   process PID BYTES          computes; BYTES "-": the driver does not tell
 *   graphics PID BYTES         draws
 *   error CALL CODE            that call returns this nvmlReturn_t; CALL: init, shutdown, count, handle, name, memory, temperature,
 *                              utilization, process, graphics
 *   hang [CALL]                that call, or any, never returns
 *   boot N                     a driver that was loaded anew: whoever began under another N is told NVML_ERROR_UNINITIALIZED
 *   device N                   what follows is of this device alone; what stands before the first such line is of all
 *
 * A call whose line is missing says NVML_ERROR_NOT_SUPPORTED; without a file there is no driver. Layouts and names: nvml.h. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9 };

struct memory { unsigned long long total, free, used; };
struct utilization { unsigned int gpu, memory; };
struct process { unsigned int pid; unsigned long long used; unsigned int gpu_instance, compute_instance; };

#define ANY (-1)
#define MOST 256
#define LINE 512

static int begun = 0;
static long begun_under;
static unsigned long devices;

struct said {
    int found;
    char words[MOST][LINE]; /* what follows the wanted word, of each of its lines */
};

/* What the file says of `word` for `device`, or for no device in particular. 0: there is no file. */
static int look(const char *word, int device, struct said *said)
{
    const char *named = getenv("NVML_STAND_IN");
    char path[LINE * 2];
    Dl_info own;
    FILE *file = NULL;
    char line[LINE];
    long of = ANY;

    if (named)
        snprintf(path, sizeof path, "%s", named);
    else if (dladdr((void *)look, &own) && own.dli_fname)
        snprintf(path, sizeof path, "%.*s/nvml.txt", (int)(strrchr(own.dli_fname, '/') - own.dli_fname), own.dli_fname);
    else
        path[0] = 0;
    file = fopen(path, "r");
    said->found = 0;
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file)) {
        size_t length = strlen(word);
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, "device ", 7))
            of = strtol(line + 7, NULL, 10);
        else if ((of == ANY || of == device) && !strncmp(line, word, length) && (line[length] == ' ' || !line[length]) && said->found < MOST)
            strcpy(said->words[said->found++], line[length] ? line + length + 1 : "");
    }
    fclose(file);
    return 1;
}

static struct said *look_up(const char *word, int device)
{
    static __thread struct said said;
    look(word, device, &said);
    return &said;
}

static long boot(void)
{
    struct said *said = look_up("boot", ANY);
    return said->found ? strtol(said->words[0], NULL, 10) : 0;
}

/* Hangs, or returns what the call is to return before it looks at anything else. */
static int enter(const char *call, int device, int needs_init)
{
    struct said *said = look_up("hang", device);
    int i;

    for (i = 0; i < said->found; i++)
        while (!said->words[i][0] || !strcmp(said->words[i], call))
            pause();
    said = look_up("error", device);
    for (i = 0; i < said->found; i++) {
        char name[LINE];
        int code;
        if (sscanf(said->words[i], "%s %d", name, &code) == 2 && !strcmp(name, call))
            return code;
    }
    if (needs_init && (!begun || begun_under != boot()))
        return UNINITIALIZED;
    return SUCCESS;
}

static int of(void *handle)
{
    return (int)(long)handle - 1;
}

int nvmlInitWithFlags(unsigned int flags)
{
    int error = enter("init", ANY, 0);
    struct said said;

    (void)flags;
    if (error)
        return error;
    if (!look("boot", ANY, &said))
        return DRIVER_NOT_LOADED;
    look("devices", ANY, &said);
    devices = said.found ? strtoul(said.words[0], NULL, 10) : 0;
    begun_under = boot();
    begun = 1;
    return SUCCESS;
}

int nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}

int nvmlShutdown(void)
{
    int error = enter("shutdown", ANY, 0);
    begun = 0;
    return error;
}

const char *nvmlErrorString(int result)
{
    static __thread char words[32];
    snprintf(words, sizeof words, "error %d", result);
    return words;
}

int nvmlDeviceGetCount_v2(unsigned int *count)
{
    int error = enter("count", ANY, 1);
    if (!error)
        *count = (unsigned int)devices;
    return error;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **handle)
{
    int error = enter("handle", (int)index, 1);
    if (error)
        return error;
    if (index >= devices)
        return INVALID_ARGUMENT;
    *handle = (void *)(long)(index + 1);
    return SUCCESS;
}

int nvmlDeviceGetName(void *handle, char *name, unsigned int room)
{
    int error = enter("name", of(handle), 1);
    struct said *said = look_up("name", of(handle));
    if (error || !said->found)
        return error ? error : NOT_SUPPORTED;
    snprintf(name, room, "%s", said->words[said->found - 1]);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *handle, struct memory *memory)
{
    int error = enter("memory", of(handle), 1);
    struct said *said = look_up("memory", of(handle));
    if (error || !said->found || sscanf(said->words[said->found - 1], "%llu %llu", &memory->used, &memory->total) != 2)
        return error ? error : NOT_SUPPORTED;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned int *celsius)
{
    int error = enter("temperature", of(handle), 1);
    struct said *said = look_up("temperature", of(handle));
    if (sensor != 0)
        return INVALID_ARGUMENT;
    if (error || !said->found)
        return error ? error : NOT_SUPPORTED;
    *celsius = (unsigned int)strtol(said->words[said->found - 1], NULL, 10);
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *handle, struct utilization *rates)
{
    int error = enter("utilization", of(handle), 1);
    struct said *said = look_up("utilization", of(handle));
    if (error || !said->found)
        return error ? error : NOT_SUPPORTED;
    rates->gpu = (unsigned int)strtoul(said->words[said->found - 1], NULL, 10);
    rates->memory = 0;
    return SUCCESS;
}

static int processes(const char *word, void *handle, unsigned int *count, struct process *into)
{
    int error = enter(word, of(handle), 1);
    struct said *said = look_up(word, of(handle));
    unsigned int room = *count;
    int i;

    if (error)
        return error;
    *count = (unsigned int)said->found;
    if (!said->found)
        return SUCCESS;
    if (!into || room < *count)
        return INSUFFICIENT_SIZE;
    for (i = 0; i < said->found; i++) {
        char used[LINE];
        memset(&into[i], 0xff, sizeof into[i]); /* no GPU instance */
        if (sscanf(said->words[i], "%u %s", &into[i].pid, used) == 2 && strcmp(used, "-"))
            into[i].used = strtoull(used, NULL, 10);
    }
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned int *count, struct process *into)
{
    return processes("process", handle, count, into);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned int *count, struct process *into)
{
    return processes("graphics", handle, count, into);
}
