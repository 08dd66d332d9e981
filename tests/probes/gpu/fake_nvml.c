/* A small libnvidia-ml.so.1 of our own, written from the public API, for tests without a GPU.
 *
 * It answers from the text file named by BENCH_FAKE_NVML_FILE, which is read again at every call: lines "key value" with
 * numbers, and "error.<function> <code>" to make one function fail, "hang.<function> <seconds>" to make it slow. A function named by "absent.<function> 1" cannot be
 * hidden here; tests of old drivers compile with -DOLD_DRIVER, which leaves out what came later. Counters named in the
 * file grow by "<key>.step" at each read. All state is of this process.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef unsigned int u32;
typedef unsigned long long u64;
typedef struct { u32 gpu, memory; } utilization_t;
typedef struct { u64 total, free, used; } memory_t;
typedef union { double d; int si; u32 ui; unsigned long ul; u64 ull; long long sll; unsigned short us; } value_t;
typedef struct { u32 id, scope; long long stamp, latency; u32 type, ret; value_t value; } field_t;
typedef struct { u64 stamp; value_t value; } sample_t;
typedef struct { u32 id, ret; double value; char *a, *b, *c; } gpm_metric_t;
typedef struct { u32 version, count; void *first, *second; gpm_metric_t metrics[1]; } gpm_get_t;
typedef struct { void *device; u64 type, data; u32 gi, ci; } event_t;
typedef struct { u32 pid; u64 used; u32 gi, ci; } process_t;
typedef struct { u32 version, sensor; int celsius; } temperature_t;
typedef struct { char legacy[16]; u32 domain, bus, device, id, subsystem; char bus_id[32]; } pci_t;

static double lookup(const char *key, double otherwise) {
    const char *path = getenv("BENCH_FAKE_NVML_FILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[256], name[200];
    double value, found = otherwise;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "%199s %lf", name, &value) == 2 && !strcmp(name, key)) found = value;
    if (file) fclose(file);
    return found;
}

/* A key of one card ("1.power") overrides that of all ("power"). */
static double card(const void *handle, const char *key, double otherwise) {
    char name[200];
    snprintf(name, sizeof name, "%d.%s", (int)((size_t)handle - 0x1000), key);
    return lookup(name, lookup(key, otherwise));
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* A counter: what the file says, growing with the clock by "<key>.per_second". */
static double counter(const void *handle, const char *key, double otherwise) {
    char name[200];
    snprintf(name, sizeof name, "%s.per_second", key);
    return card(handle, key, otherwise) + now() * card(handle, name, 0);
}

static u32 failing(const void *handle, const char *function) {
    char name[200];
    double hang = handle ? card(handle, "hang", 0) : 0;
    if (hang > 0) usleep((useconds_t)(hang * 1e6));
    if (handle && card(handle, "lost", 0) > 0) return 15;
    snprintf(name, sizeof name, "hang.%s", function);
    usleep((useconds_t)((handle ? card(handle, name, 0) : lookup(name, 0)) * 1e6));
    snprintf(name, sizeof name, "error.%s", function);
    return (u32)(handle ? card(handle, name, 0) : lookup(name, 0));
}

#define CHECK(handle) do { u32 code = failing(handle, __func__); if (code) return code; } while (0)

u32 nvmlInitWithFlags(u32 flags) { (void)flags; CHECK(NULL); return 0; }
u32 nvmlInit_v2(void) { CHECK(NULL); return 0; }
u32 nvmlShutdown(void) { CHECK(NULL); return 0; }
const char *nvmlErrorString(u32 code) { (void)code; return "an error of the fake library"; }
u32 nvmlSystemGetDriverVersion(char *text, u32 size) { CHECK(NULL); snprintf(text, size, "570.00.fake"); return 0; }
u32 nvmlDeviceGetCount_v2(u32 *count) { CHECK(NULL); *count = (u32)lookup("count", 1); return 0; }
u32 nvmlDeviceGetHandleByIndex_v2(u32 index, void **handle) {
    void *made = (void *)(size_t)(0x1000 + index);
    CHECK(made);
    *handle = made;
    return 0;
}
u32 nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    size_t number;
    if (sscanf(uuid, "GPU-fake-%zx", &number) != 1 || number - 0x1000 >= (size_t)lookup("count", 1)) return 6;
    CHECK((void *)number);
    *handle = (void *)number;
    return 0;
}
u32 nvmlDeviceGetName(void *h, char *text, u32 size) { CHECK(h); snprintf(text, size, "Fake H200"); return 0; }
u32 nvmlDeviceGetUUID(void *h, char *text, u32 size) { CHECK(h); snprintf(text, size, "GPU-fake-%zx", (size_t)h); return 0; }
u32 nvmlDeviceGetPciInfo_v3(void *h, pci_t *pci) {
    CHECK(h);
    memset(pci, 0, sizeof *pci);
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02zX:00.0", (size_t)h - 0x1000 + 1);
    return 0;
}
u32 nvmlDeviceGetMemoryInfo(void *h, memory_t *m) {
    CHECK(h);
    m->total = 150754820096ULL; m->used = (u64)card(h, "memory_used", 1e9); m->free = m->total - m->used;
    return 0;
}
u32 nvmlDeviceGetUtilizationRates(void *h, utilization_t *u) {
    CHECK(h);
    u->gpu = (u32)card(h, "utilization", 97); u->memory = 40;
    return 0;
}

#define NUMBER(function, type, key, otherwise) \
    u32 function(void *h, type *out) { CHECK(h); *out = (type)card(h, key, otherwise); return 0; }
#define COUNTER(function, type, key, otherwise) \
    u32 function(void *h, type *out) { CHECK(h); *out = (type)counter(h, key, otherwise); return 0; }

NUMBER(nvmlDeviceGetPowerUsage, u32, "power_milliwatts", 500000)
COUNTER(nvmlDeviceGetTotalEnergyConsumption, u64, "energy_millijoules", 1e9)
NUMBER(nvmlDeviceGetTemperature_value, u32, "temperature", 55)
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, u32, "generation", 5)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, u32, "width", 16)
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, u32, "max_generation", 5)
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, u32, "max_width", 16)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, u32, "power_limit_milliwatts", 700000)
NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, u32, "power_limit_milliwatts", 700000)
NUMBER(nvmlDeviceGetPersistenceMode, u32, "persistence", 1)
COUNTER(nvmlDeviceGetPcieReplayCounter, u32, "replays", 3)
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, u64, "reasons", 0)
u32 nvmlDeviceGetTemperature(void *h, u32 sensor, u32 *out) { (void)sensor; CHECK(h); return nvmlDeviceGetTemperature_value(h, out); }
u32 nvmlDeviceGetClockInfo(void *h, u32 kind, u32 *out) { CHECK(h); *out = kind == 2 ? 3201 : (u32)card(h, "sm_clock", 1700); return 0; }
u32 nvmlDeviceGetMaxClockInfo(void *h, u32 kind, u32 *out) { (void)kind; CHECK(h); *out = 1980; return 0; }

u32 nvmlDeviceGetTotalEccErrors(void *h, u32 type, u32 kind, u64 *out) {
    (void)kind;
    CHECK(h);
    *out = (u64)counter(h, type == 1 ? "uncorrected" : "corrected", 0);
    return 0;
}
u32 nvmlDeviceGetEccMode(void *h, u32 *current, u32 *pending) {
    CHECK(h);
    *current = (u32)card(h, "ecc", 1); *pending = (u32)card(h, "ecc_pending", *current);
    return 0;
}
u32 nvmlDeviceGetMigMode(void *h, u32 *current, u32 *pending) { CHECK(h); *current = *pending = (u32)card(h, "mig", 0); return 0; }
u32 nvmlDeviceGetComputeRunningProcesses_v3(void *h, u32 *count, process_t *out) {
    u32 there = (u32)card(h, "processes", 0);
    CHECK(h);
    if (there && !out) { *count = there; return 7; }
    for (u32 i = 0; out && i < there; i++) out[i] = (process_t){4000 + i, 1 << 30, 0, 0};
    *count = there;
    return 0;
}
u32 nvmlDeviceGetNvLinkState(void *h, u32 link, u32 *active) {
    CHECK(h);
    if (link >= (u32)card(h, "nvlinks", 0)) return 2;
    *active = link >= (u32)card(h, "nvlinks_down", 0);
    return 0;
}

/* Of the questions one may ask of two cards only that for NVLink (2) is answered: 0 there is, 5 there is not. */
u32 nvmlDeviceGetP2PStatus(void *h, void *other, u32 index, u32 *status) {
    CHECK(h);
    int up = index == 2;
    for (int i = 0; i < 2; i++) {
        const void *one = i ? other : h;
        up = up && card(one, "nvlinks", 0) > card(one, "nvlinks_down", 0);
    }
    *status = up ? 0 : 5;
    return 0;
}

u32 nvmlDeviceGetNvLinkErrorCounter(void *h, u32 link, u32 kind, u64 *out) {
    (void)link; (void)kind;
    CHECK(h);
    *out = (u64)counter(h, "nvlink_errors", 0);
    return 0;
}

#ifndef OLD_DRIVER
u32 nvmlDeviceGetGpuMaxPcieLinkGeneration(void *h, u32 *out) { CHECK(h); *out = 5; return 0; }
u32 nvmlDeviceGetCpuAffinity(void *h, u32 words, unsigned long *out) {
    CHECK(h);
    memset(out, 0, words * sizeof *out);
    out[0] = (unsigned long)card(h, "cpus", 0);
    return 0;
}
NUMBER(nvmlDeviceGetCurrentClocksEventReasons, u64, "reasons", 0)
u32 nvmlDeviceGetTemperatureV(void *h, temperature_t *t) { CHECK(h); t->celsius = (int)card(h, "temperature", 55); return 0; }
u32 nvmlDeviceGetRemappedRows(void *h, u32 *corrected, u32 *uncorrected, u32 *pending, u32 *failed) {
    CHECK(h);
    *corrected = 0; *uncorrected = (u32)card(h, "remapped", 0);
    *pending = (u32)card(h, "remap_pending", 0); *failed = (u32)card(h, "remap_failed", 0);
    return 0;
}

u32 nvmlDeviceGetFieldValues(void *h, int count, field_t *fields) {
    CHECK(h);
    for (int i = 0; i < count; i++) {
        char key[32], error[64];
        snprintf(key, sizeof key, "field.%u", fields[i].id);
        snprintf(error, sizeof error, "error.field.%u", fields[i].id);
        fields[i].ret = (u32)card(h, error, 0);
        fields[i].type = card(h, "field_nan", 0) > 0 ? 0 : 3;
        if (fields[i].type == 0) fields[i].value.d = NAN;
        else fields[i].value.ull = (u64)counter(h, key, fields[i].id == 230 ? 0 : fields[i].id == 82 ? 60 : 1000);
    }
    return 0;
}

u32 nvmlDeviceGetSamples(void *h, u32 kind, u64 since, u32 *type, u32 *count, sample_t *out) {
    u64 last = (u64)(now() * 10), first = since / 100000 + 1; /* ten a second */
    (void)kind;
    CHECK(h);
    if (first + 100 < last) first = last - 100;
    *type = 1;
    if (first > last) { *count = 0; return 6; } /* as a real driver: not found */
    for (u64 i = first; out && i <= last && i - first < *count; i++) {
        out[i - first].stamp = i * 100000;
        out[i - first].value.ui = (u32)card(h, "utilization", 97);
    }
    if (!out) *count = (u32)(last - first + 1);
    return 0;
}

u32 nvmlGpmQueryDeviceSupport(void *h, u32 *support) { CHECK(h); support[1] = (u32)card(h, "gpm", 1); return 0; }
u32 nvmlGpmSampleAlloc(void **sample) { CHECK(NULL); *sample = calloc(1, 64); return 0; }
u32 nvmlGpmSampleFree(void *sample) { free(sample); return 0; }
u32 nvmlGpmSampleGet(void *h, void *sample) { CHECK(h); memcpy(sample, &h, sizeof h); return 0; }
u32 nvmlGpmMetricsGet(gpm_get_t *get) {
    void *h;
    CHECK(NULL);
    if (get->version != 1) return 25;
    memcpy(&h, get->second, sizeof h);
    for (u32 i = 0; i < get->count; i++) {
        char key[32], error[64];
        snprintf(key, sizeof key, "gpm.%u", get->metrics[i].id);
        snprintf(error, sizeof error, "error.gpm.%u", get->metrics[i].id);
        get->metrics[i].ret = (u32)card(h, error, 0);
        get->metrics[i].value = card(h, "gpm_nan", 0) > 0 ? NAN : card(h, key, 50);
    }
    return 0;
}
#endif

u32 nvmlEventSetCreate(void **set) { CHECK(NULL); *set = calloc(1, sizeof(double)); return 0; }
u32 nvmlEventSetFree(void *set) { free(set); return 0; }
u32 nvmlDeviceRegisterEvents(void *h, u64 types, void *set) { (void)types; (void)set; CHECK(h); return 0; }
/* "xid" is told once for each "xids" that the file counts up to. */
u32 nvmlEventSetWait_v2(void *set, event_t *event, u32 milliseconds) {
    double *told = set;
    (void)milliseconds;
    CHECK(NULL);
    if (*told >= lookup("xids", 0)) return 10;
    *told += 1;
    memset(event, 0, sizeof *event);
    event->device = (void *)(size_t)(0x1000 + (u32)lookup("xid_card", 0));
    event->type = 8; event->data = (u64)lookup("xid", 79);
    return 0;
}
