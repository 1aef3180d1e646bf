/*
 * A freeDiameter extension that makes freeDiameterd a charging data function: every ACR of base
 * accounting (application 3) is answered with DIAMETER_SUCCESS and printed as one line,
 *
 *     ACR <Accounting-Record-Type> <Accounting-Record-Number> <T flag> <Session-Id>
 *
 * Its configuration file, if there is one, holds the Acct-Interim-Interval of the answers. The
 * dictionaries come from freeDiameter's own extensions, so that an AVP they do not know, or know
 * otherwise, is refused. One is defined here: Instance-Id, which came into TS 32.299 after the
 * dictionary of version 1.2.1 was written.
 */
#include <freeDiameter/extension.h>

#include <inttypes.h>
#include <stdio.h>

static struct dict_object *session_id, *record_type, *record_number, *interim_interval;
static unsigned interval;

static int find(const char *name, struct dict_object **found)
{
    return fd_dict_search(fd_g_config->cnf_dict, DICT_AVP, AVP_BY_NAME, name, found, ENOENT);
}

static union avp_value *value(struct msg *msg, struct dict_object *what)
{
    struct avp *avp = NULL;
    struct avp_hdr *header = NULL;
    if (fd_msg_search_avp(msg, what, &avp) != 0 || avp == NULL)
        return NULL;
    if (fd_msg_avp_hdr(avp, &header) != 0)
        return NULL;
    return header->avp_value;
}

static int add(struct msg *msg, struct dict_object *what, uint32_t number)
{
    struct avp *avp = NULL;
    union avp_value content = { .u32 = number };
    CHECK_FCT(fd_msg_avp_new(what, 0, &avp));
    CHECK_FCT(fd_msg_avp_setvalue(avp, &content));
    CHECK_FCT(fd_msg_avp_add(msg, MSG_BRW_LAST_CHILD, avp));
    return 0;
}

static int answer(struct msg **msg, struct avp *avp, struct session *session, void *data,
                  enum disp_action *action)
{
    static const char *const names[] = { "?", "EVENT", "START", "INTERIM", "STOP" };
    struct msg_hdr *header = NULL;
    union avp_value *id = value(*msg, session_id);
    union avp_value *type = value(*msg, record_type);
    union avp_value *number = value(*msg, record_number);
    CHECK_FCT(fd_msg_hdr(*msg, &header));
    if (id == NULL || type == NULL || number == NULL || type->u32 > 4)
        return EINVAL; /* the parser has refused such an ACR before */
    uint32_t of_type = type->u32, of_number = number->u32;
    int is_again = (header->msg_flags & CMD_FLAG_RETRANSMIT) != 0;

    flockfile(stdout);
    printf("ACR %s %" PRIu32 " %d %.*s\n", names[of_type], of_number, is_again,
           (int)id->os.len, (const char *)id->os.data);
    fflush(stdout);
    funlockfile(stdout);

    CHECK_FCT(fd_msg_new_answer_from_req(fd_g_config->cnf_dict, msg, 0));
    CHECK_FCT(fd_msg_rescode_set(*msg, "DIAMETER_SUCCESS", NULL, NULL, 1));
    CHECK_FCT(add(*msg, record_type, of_type));
    CHECK_FCT(add(*msg, record_number, of_number));
    if (interval > 0 && (of_type == 2 || of_type == 3))
        CHECK_FCT(add(*msg, interim_interval, interval));
    *action = DISP_ACT_SEND;
    return 0;
}

static int define_instance_id(void)
{
    struct dict_object *vendor = NULL, *type = NULL;
    vendor_id_t tgpp = 10415;
    struct dict_avp_data data = { 3402, 10415, "Instance-Id", AVP_FLAG_VENDOR | AVP_FLAG_MANDATORY,
                                  AVP_FLAG_VENDOR | AVP_FLAG_MANDATORY, AVP_TYPE_OCTETSTRING };
    struct dict_object *known = NULL;
    if (fd_dict_search(fd_g_config->cnf_dict, DICT_VENDOR, VENDOR_BY_ID, &tgpp, &vendor, ENOENT))
        return 0; /* without 3GPP's dictionary nothing of 3GPP's is known */
    if (fd_dict_search(fd_g_config->cnf_dict, DICT_AVP, AVP_BY_NAME_ALL_VENDORS, "Instance-Id",
                       &known, ENOENT) == 0)
        return 0;
    CHECK_FCT(fd_dict_search(fd_g_config->cnf_dict, DICT_TYPE, TYPE_BY_NAME, "UTF8String", &type,
                             ENOENT));
    return fd_dict_new(fd_g_config->cnf_dict, DICT_AVP, &data, type, NULL);
}

static int start(char *conffile)
{
    struct disp_when when = { 0 };
    application_id_t accounting = 3;
    if (conffile != NULL) {
        FILE *file = fopen(conffile, "r");
        if (file == NULL || fscanf(file, "%u", &interval) != 1)
            return EINVAL;
        fclose(file);
    }
    CHECK_FCT(define_instance_id());
    CHECK_FCT(find("Session-Id", &session_id));
    CHECK_FCT(find("Accounting-Record-Type", &record_type));
    CHECK_FCT(find("Accounting-Record-Number", &record_number));
    CHECK_FCT(find("Acct-Interim-Interval", &interim_interval));
    CHECK_FCT(fd_dict_search(fd_g_config->cnf_dict, DICT_APPLICATION, APPLICATION_BY_ID,
                             &accounting, &when.app, ENOENT));
    CHECK_FCT(fd_dict_search(fd_g_config->cnf_dict, DICT_COMMAND, CMD_BY_NAME,
                             "Accounting-Request", &when.command, ENOENT));
    CHECK_FCT(fd_disp_register(answer, DISP_HOW_CC, &when, NULL, NULL));
    CHECK_FCT(fd_disp_app_support(when.app, NULL, 0, 1));
    return 0;
}

EXTENSION_ENTRY("acr_answer", start);
